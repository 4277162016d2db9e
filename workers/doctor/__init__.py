"""The doctor: `python -m workers.doctor` checks the clouds of the settings, and says what to mend."""

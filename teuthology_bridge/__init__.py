"""The bridge from teuthology to the master: the task `buildpackages` and the command of the same name.

It runs in teuthology's process, shares no code with the master, and knows only the wire. Every
Python that starts beside it imports this module: it imports nothing.
"""

__version__ = "1.0.0"

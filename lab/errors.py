"""What goes wrong with a lab, said in a sentence."""

from __future__ import annotations


class LabError(Exception):
    """The lab cannot do what was asked; the sentence says why, and what to do."""

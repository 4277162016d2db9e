"""What holds for every test: no state is kept from one run to the next, and no user's configuration is read."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile

from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir

from tests.cloud import lab, tenant

__all__ = ["lab", "tenant"]
"""Fixtures for every test: one lab for the whole session."""

_HOME = tempfile.mkdtemp(prefix="hypothesis-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
set_hypothesis_home_dir(_HOME)
settings.register_profile("gate", database=None, deadline=None, derandomize=True)
settings.load_profile("gate")

# Started in the background, a shell has its programs ignore it, and what they start does so, too: but tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ["GIT_CONFIG_GLOBAL"] = "/dev/null"
os.environ["GIT_CONFIG_NOSYSTEM"] = "1"

"""`make audit` says what it could not ask; that is no clean result."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.patience import free_ports

CHECKOUT = Path(__file__).resolve().parent.parent


def test_a_service_that_cannot_be_reached_is_named() -> None:
    """Without the network, pip-audit and debsecan both end in a sentence, and the status is not that of a finding."""
    [closed] = free_ports(1)
    proxy = f"http://127.0.0.1:{closed}"
    away = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), proxy)
    ran = subprocess.run(
        [sys.executable, "deploy/audit.py"],
        cwd=CHECKOUT, env={**os.environ, **away}, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 2, ran.stdout + ran.stderr
    assert "pip-audit could not check requirements.txt: " in ran.stderr
    assert "debsecan could not ask Debian's security tracker: " in ran.stderr
    assert "no known" not in ran.stdout

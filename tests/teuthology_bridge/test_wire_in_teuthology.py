"""The same in a process that teuthology has patched with gevent, where `requests` is held for ever by some of it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import teuthology_venv
from tests.teuthology_bridge.peers import MUTE, STRANGE, Peer, nobody, says
from tests.teuthology_bridge.test_wire import secure

SCRIPT = Path(__file__).with_name("exchange_in_teuthology.py")
SHORT = 0.6

pytestmark = pytest.mark.timeout(120)


def in_teuthology(rows: Sequence[tuple[str, float]], **environment: str) -> list[tuple[str, int, str]]:
    """Give for each exchange what came of it, how often another greenlet ran, and what came in a signal's handler."""
    python = teuthology_venv.venv() / "bin/python"
    finished = subprocess.run(
        [python, SCRIPT],
        input=json.dumps(rows),
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[2]), "no_proxy": "*", **environment},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    return [(told, ticks, handled) for told, ticks, handled in json.loads(finished.stdout)]


def test_nothing_holds_it_and_other_greenlets_run() -> None:
    """An answer that never ends is left in time, waiting lets others run, and a signal's handler can do it as well."""
    over = f"no whole answer came within {SHORT:g} s"
    with ExitStack() as stack:
        urls = [stack.enter_context(Peer(behave)).url for behave in MUTE.values()]
        got = in_teuthology([(url, SHORT) for url in [*urls, "http://hangs.invalid/"]])
    for name, (told, ticks, handled) in zip([*MUTE, "hangs"], got, strict=True):
        assert (told, handled) == (over, over), name
        # Who floods us leaves no time for others, but no longer than the exchange may last.
        assert ticks >= 2 or "floods" in name, (name, ticks)


def test_what_comes_is_read() -> None:
    """Answers, refusals and names are the same as elsewhere."""
    with ExitStack() as stack:
        here = stack.enter_context(Peer(says("200 OK", b"here")))
        dead = stack.enter_context(nobody())
        rows = {
            here.url: "here",
            f"http://localhost:{here.port}/": "here",
            dead: "Connection refused",
        }
        for behave, sentence in STRANGE.values():
            rows[stack.enter_context(Peer(behave)).url] = sentence
        got = in_teuthology([(url, 10) for url in rows])
    for (url, sentence), (told, _, handled) in zip(rows.items(), got, strict=True):
        assert told.startswith(sentence), url
        assert handled.startswith(sentence), url


def test_tls(tmp_path: Path) -> None:
    """TLS is spoken there as elsewhere, and bounded as elsewhere."""
    with (
        secure(tmp_path, says("200 OK", b"x" * 100_000)) as (peer, certificate),
        secure(tmp_path, MUTE["drips a header"]) as (slow, _),
    ):
        got = in_teuthology([(peer.url, 10), (slow.url, 0.5)], REQUESTS_CA_BUNDLE=str(certificate))
    assert got[0][0] == got[0][2] == "x" * 100
    assert got[1][0] == got[1][2] == "no whole answer came within 0.5 s"

"""The provider on fake clouds, for the tests of what stands on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from twisted.python import log

from tests.fakes.provider import Provided

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def mistakes() -> Iterator[list[str]]:
    """What was logged as an error; a test that expects some takes them away, and any that is left fails it."""
    found: list[str] = []

    def observe(event: dict[str, Any]) -> None:
        if event.get("isError"):
            found.append(str(log.textFromEventDict(event)))

    log.addObserver(observe)
    try:
        yield found
    finally:
        log.removeObserver(observe)
    assert found == []


@pytest.fixture
def provided(monkeypatch: pytest.MonkeyPatch, mistakes: list[str]) -> Iterator[Callable[..., Provided]]:
    """Makes providers; what still waits when the test ends is stopped."""
    made: list[Provided] = []

    def make(*clouds: dict[str, Any], **settings: Any) -> Provided:
        made.append(Provided(monkeypatch, *clouds, **settings))
        return made[-1]

    yield make
    for one in made:
        one.stop()

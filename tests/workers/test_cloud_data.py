"""What many look up and one asks for."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock

from workers.cloud_data import Kept
from workers.cloud_errors import Kind, Trouble


class Here:
    """A look-up on a clock of the test's, whose answers the test gives."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.asked: list[Deferred[Any]] = []
        self.kept = Kept(self.clock, 5.0, self._look_up)

    async def _look_up(self) -> Any:
        self.asked.append(Deferred())
        return await self.asked[-1]

    def get(self, or_last: float = 0) -> list[Any]:
        """Ask; give a list into which the answer comes."""
        found: list[Any] = []
        ensureDeferred(self.kept.get(or_last)).addBoth(found.append)
        return found


def test_one_asks_for_all() -> None:
    """All that ask while one look-up is under way get its answer; it is kept for its seconds and no longer."""
    here = Here()
    first, second = here.get(), here.get()
    assert len(here.asked) == 1
    here.asked[0].callback("answer")
    assert (first, second) == (["answer"], ["answer"])
    here.clock.advance(4)
    assert here.get() == ["answer"]
    here.clock.advance(2)
    here.get()
    assert len(here.asked) == 2


def test_who_asked_first_may_go() -> None:
    """A look-up is nobody's own: the others get its answer though who asked first was stopped."""
    here = Here()
    first = ensureDeferred(here.kept.get())
    first.addErrback(lambda _: None)
    second = here.get()
    first.cancel()
    here.asked[0].callback("answer")
    assert second == ["answer"]


def test_what_is_forgotten_while_it_is_asked_for_is_not_kept() -> None:
    """The answer to a question from before does for those who asked, and the next one asks again."""
    here = Here()
    found = here.get()
    here.kept.forget()
    here.asked[0].callback("from before")
    assert found == ["from before"]
    here.get()
    assert len(here.asked) == 2
    here.asked[1].callback("answer")
    assert here.get() == ["answer"]


AWAY = Trouble(Kind.PASSING, "it did not answer")
REFUSED = Trouble(Kind.PERMANENT, "the credentials are refused")


@pytest.mark.parametrize(
    ("seconds", "trouble", "known"), [(60, AWAY, True), (61, AWAY, False), (60, REFUSED, False)]
)
def test_the_last_answer_outlives_a_failure(seconds: int, trouble: Trouble, known: bool) -> None:
    """While a cloud is away the last answer does for as long as is wanted; a refusal is the answer itself."""
    here = Here()
    here.get()
    here.clock.advance(1)
    here.asked[0].callback("answer")
    assert here.kept.asked_at == 0, "when it was asked for, not when it came"
    here.clock.advance(seconds - 1)
    found = here.get(60)
    here.asked[1].errback(trouble)
    assert found[0] == "answer" if known else found[0].value is trouble

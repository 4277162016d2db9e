"""A call that is made in a thread of its own, and whose result is looked for now and then."""

from __future__ import annotations

from threading import Event, Thread
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Aside(Generic[T]):
    """One call. Under gevent's patches it is a greenlet; nobody waits for it when the program ends."""

    def __init__(self, call: Callable[[], T], expected: tuple[type[Exception], ...]) -> None:
        """Begin it; exceptions of the expected kinds are raised with the result, others where they happen."""
        self._call = call
        self._expected = expected
        self._results: list[T] = []
        self._error: Exception | None = None
        # A thread that gevent has turned into a greenlet never says by itself that it has ended.
        self._over = Event()
        Thread(target=self._run, daemon=True).start()

    def is_over(self, seconds: float) -> bool:
        """Tell whether it is over, after so many seconds at most."""
        return self._over.wait(seconds)

    def result(self) -> T:
        """Give what it gave, or raise what it raised, once it is over."""
        if self._error is not None:
            raise self._error
        return self._results[0]

    def _run(self) -> None:
        try:
            self._results.append(self._call())
        except self._expected as error:
            self._error = error
        finally:
            self._over.set()

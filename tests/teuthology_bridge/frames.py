"""What teuthology's report of an exception to Sentry shows: the variables of every frame that it came through."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

_TESTS = Path(__file__).parents[1]

BLOTTED_OUT = ("auth", "authorization", "credentials", "secret", "token")
"""Names of variables whose values sentry_sdk does not send: from its DEFAULT_DENYLIST."""


def variables(error: BaseException) -> Iterator[str]:
    """Give `function: name = value` for each variable, also of what the exception came of."""
    left, seen = [error], set()
    while left:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        left += [other for other in (one.__cause__, one.__context__) if other is not None]
        yield from _of_frames(one.__traceback__)


def _of_frames(traceback: TracebackType | None) -> Iterator[str]:
    while traceback is not None:
        frame = traceback.tb_frame
        # A test's own know the token, and a server that was told it.
        its = {} if Path(frame.f_code.co_filename).is_relative_to(_TESTS) else frame.f_locals
        for name, value in its.items():
            if name.lower() not in BLOTTED_OUT:
                yield f"{frame.f_code.co_name}: {name} = {value!r}"
        traceback = traceback.tb_next

"""The table of a whole run: what fits where, and how it is redrawn."""

from __future__ import annotations

import io
import os
from collections.abc import Callable

import pytest

from tests.teuthology_bridge.terminal import Terminal
from teuthology_bridge.table import (
    Lines,
    Live,
    Row,
    columns,
    counts,
    cut,
    cut_middle,
    display,
    render,
    time_left,
)

SHA1 = "0123456789abcdef0123456789abcdef01234567"
BUILD = "http://master.example.org:8010/#/builders/3/builds/17"
BUILDING = Row(f"ceph-deb-jammy-x86_64-default/{SHA1}", "building", "compile", 34, 2040.0, BUILD)
WAITING = Row(
    f"ceph-rpm-centos9-x86_64-default/{SHA1}", "waiting", "waits in line; 2 are before it", None, 7500.0
)
ASKING = Row("ceph-deb-noble-x86_64-default/wip/foo", "asking")
PUBLISHED = Row(f"ceph-deb-focal-x86_64-default/{SHA1}", "published", url=f"http://p/{SHA1}/")
FAILED = Row(
    f"ceph-deb-bookworm-x86_64-debug/{SHA1}",
    "failed",
    url="http://master.example.org:8010/#/builders/4/builds/2",
)
ROWS = [BUILDING, WAITING, ASKING, PUBLISHED, FAILED]
CHINESE = Row(f"ceph-deb-jammy-x86_64-default/{SHA1}", "building", "編譯程式碼", 5, 30.0)


def test_all_columns_where_there_is_room() -> None:
    """With room for all, each row is one line, its columns stand below each other, and its URL is whole."""
    assert render([BUILDING, PUBLISHED], 200) == [
        "KEY                                         STATE      STEP      %    LEFT  URL",
        f"ceph-deb-jammy-x86_64-default/0123456789ab  building   compile  34  34 min  {BUILD}",
        f"ceph-deb-focal-x86_64-default/0123456789ab  published                       http://p/{SHA1}/",
    ]


def test_a_column_without_anything_is_not_there() -> None:
    """What no row has takes no place."""
    assert render([ASKING], 200) == ["KEY                                    STATE", f"{ASKING.key}  asking"]
    assert render([], 200) == []


def test_urls_go_below_where_they_do_not_fit() -> None:
    """A URL that has no place in its row has a line of its own, whole: cut, it would be good for nothing."""
    assert render([BUILDING, PUBLISHED], 80) == [
        "KEY                                         STATE      STEP      %    LEFT",
        "ceph-deb-jammy-x86_64-default/0123456789ab  building   compile  34  34 min",
        f"    {BUILD}",
        "ceph-deb-focal-x86_64-default/0123456789ab  published",
        f"    http://p/{SHA1}/",
    ]


def test_what_is_needed_least_goes_first() -> None:
    """Narrower and narrower: digits of the sha1, some of the key, the step, the time, the per cent, then more of the key."""
    for width, line in (
        (75, "ceph-deb-jammy-x86_64-default/0123456789ab  building  compile  34  34 min"),
        (70, "ceph-deb-jammy-x86_64-default/01234567  building  compile  34  34 min"),
        (58, "ceph-deb-jammy-x8…/01234567  building  compile  34  34 min"),
        (57, "ceph-deb-jammy-x86_64-def…/01234567  building  34  34 min"),
        (46, "ceph-deb-jammy-x86_64-…/01234567  building  34"),
        (40, "ceph-deb-jammy-x86_6…/01234567  building"),
        (20, "ceph…34567  building"),
        (8, "cep…456…"),
    ):
        assert render([BUILDING], width, 2)[1] == line


@pytest.mark.parametrize("height", [None, 1, 2, 3, 5, 8, 50])
def test_no_line_is_wider_than_the_terminal(height: int | None) -> None:
    """Whatever the width, no line of the table is wider, URLs in a whole table excepted, and no table is higher than asked."""
    for width in range(1, 220):
        lines = render([*ROWS, CHINESE], width, height)
        assert height is None or len(lines) <= height
        for line in lines:
            assert columns(line) <= width or (height is None and line.startswith("    http"))


def test_rows_without_a_place_are_counted() -> None:
    """Where there are more rows than lines, those that matter now have a place, in their order, and the others are counted."""
    lines = render([PUBLISHED, PUBLISHED, WAITING, BUILDING, PUBLISHED, FAILED], 200, 5)
    assert [line.split()[1] for line in lines[1:-1]] == ["waiting", "building", "failed"]
    assert lines[-1] == "… and 3 published"


def test_urls_of_what_is_built_come_first() -> None:
    """With little height, only builds have their URL below, and with less, none has."""
    assert sum("http" in line for line in render(ROWS, 80, 20)) == 3
    assert [line for line in render(ROWS, 80, 8) if "http" in line] == [f"    {BUILD}"]
    assert not [line for line in render(ROWS, 80, 6) if "http" in line]


def test_wide_characters_take_two_columns() -> None:
    """What stands behind East Asian or combining characters is where it belongs."""
    assert columns("編譯") == 4
    assert columns("e\u0301") == 1
    assert cut("編譯程式", 5) == "編譯…"
    assert cut("編譯程式", 4) == "編…"
    assert cut("short", 5) == "short"
    assert cut_middle("ceph-deb-jammy-x86_64-default/01234567", 20) == "ceph-deb-j…/01234567"
    assert render([CHINESE, Row(CHINESE.key, "building", "x", 34)], 100)[1:] == [
        f"{CHINESE.key[:42]}  building  編譯程式碼   5  30 s",
        f"{CHINESE.key[:42]}  building  x           34",
    ]


def test_what_is_told_stays_one_line() -> None:
    """Control characters that a step or a URL may hold do not reach the terminal."""
    [_, line] = render([Row(ASKING.key, "building", "a\x1b[2Jb\nc")], 100)
    assert line.endswith("a [2Jb c")


def test_states_and_time_left_are_summed_up() -> None:
    """How many are in which state, and how long the last will take, if that is known of all."""
    assert counts(ROWS) == "1 published, 1 asking, 1 waiting, 1 building, 1 failed"
    assert time_left([BUILDING, WAITING, PUBLISHED]) == "about 2 h 05 min left"
    assert time_left([BUILDING, ASKING]) == ""
    assert time_left([PUBLISHED]) == ""


class Screen(io.StringIO):
    """A stream that is a terminal."""

    def __init__(self, width: int, height: int, encoding: str = "utf-8") -> None:
        super().__init__()
        self.size = os.terminal_size((width, height))
        self.terminal = Terminal(width, height)
        self._named = encoding
        self.frames = 0

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._named

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.frames += 1
        self.terminal.write(text)
        return len(text)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def live(screen: Screen) -> Live:
    return Live(screen, lambda: screen.size, Clock())


def test_the_table_is_redrawn_in_place() -> None:
    """Each frame is over the one before, in one write; nothing of a longer one is left, and what is said stands above."""
    screen = Screen(60, 24)
    screen.terminal.write("$ buildpackages prefetch\n")
    shown = live(screen)
    shown.show("two of them", [BUILDING, WAITING, PUBLISHED])
    shown.say("the master is away")
    shown.show("one of them\nand it is away", [PUBLISHED])
    assert screen.frames == 3
    assert screen.terminal.screen[:5] == [
        "$ buildpackages prefetch",
        "the master is away",
        "one of them",
        "and it is away",
        "KEY                                         STATE",
    ]
    assert "building" not in "".join(screen.terminal.screen)
    shown.end()
    assert screen.terminal.screen == ["$ buildpackages prefetch", "the master is away"]
    assert screen.terminal.wrapped == 0


def test_nothing_is_written_while_nothing_changes() -> None:
    """The same frame again is no write, and frames that follow each other too fast are left out."""
    screen = Screen(60, 24)
    shown = live(screen)
    for _ in range(5):
        shown.show("head", [WAITING])
    assert screen.frames == 1
    still = Live(screen, lambda: screen.size, lambda: 0.0)
    for step in "abc":
        still.show("head", [Row(ASKING.key, "building", step)])
    assert screen.frames == 2


def test_a_terminal_may_become_narrower() -> None:
    """What the narrower terminal has wrapped is overwritten as well."""
    screen = Screen(80, 24)
    screen.terminal.write("before\n")
    shown = live(screen)
    shown.show("head", [BUILDING, WAITING])
    # As a terminal does with lines that are too long for it now.
    screen.size, screen.terminal = os.terminal_size((30, 24)), rewrapped(screen.terminal, 30)
    shown.show("head", [BUILDING, WAITING])
    assert screen.terminal.screen[:3] == ["before", "head", render([BUILDING, WAITING], 29, 22)[0]]
    assert len(screen.terminal.screen) == 2 + len(render([BUILDING, WAITING], 29, 22))


def rewrapped(terminal: Terminal, width: int) -> Terminal:
    made = Terminal(width, terminal.lines)
    made.write("".join(f"{line}\n" for line in terminal.screen))
    return made


def test_a_table_of_a_hundred_rows_fits_a_small_terminal() -> None:
    """It never has more lines than the terminal, as what has scrolled away can't be redrawn."""
    screen = Screen(60, 10)
    screen.terminal.write("before\n")
    shown = live(screen)
    for number in range(3):
        shown.show(
            f"head {number}",
            [Row(f"ceph-deb-jammy-x86_64-default/{n}", "building", f"{number}") for n in range(100)],
        )
    assert [line for line in screen.terminal.screen if "head" in line] == ["head 2"]
    assert screen.terminal.screen[0] == "before"
    assert screen.terminal.screen[-1] == "… and 94 building"
    shown.end()
    assert screen.terminal.screen == ["before"]


def test_what_an_encoding_lacks_does_not_end_it() -> None:
    """On a terminal that knows ASCII only, other characters are question marks."""
    screen = Screen(60, 10, "ascii")
    live(screen).show("head", [Row("k/v", "building", "編譯")])
    assert "k/v       building  ??" in screen.terminal.screen


def lines(stamp: Callable[[], str] = lambda: "12:00:00") -> tuple[Lines, io.StringIO, Clock]:
    stream, clock = io.StringIO(), Clock()
    return Lines(stream, clock, stamp), stream, clock


def test_elsewhere_each_change_is_a_line() -> None:
    """Without a terminal there is one line for each change of a key's state, step or URL, with the whole key, and no figures."""
    shown, stream, _ = lines()
    shown.show("head", [ASKING, BUILDING])
    shown.show("head", [ASKING, Row(BUILDING.key, "building", "compile", 35, 2000.0, BUILD)])
    shown.show("head", [ASKING, PUBLISHED, FAILED])
    shown.say("the master is away")
    shown.end()
    assert stream.getvalue().splitlines() == [
        f"12:00:00 {BUILDING.key}: building, compile, {BUILD}",
        f"12:00:00 {PUBLISHED.key}: published, {PUBLISHED.url}",
        "12:00:00 the master is away",
    ]


def test_elsewhere_there_is_a_summary_once_a_minute() -> None:
    """Without news, the head is said once a minute, and not more often."""
    shown, stream, clock = lines()
    for _ in range(4 * 60):
        clock.now += 0.0
        shown.show("2 packages\nthe master is away", [ASKING])
    said = stream.getvalue().splitlines()
    assert set(said) == {"12:00:00 2 packages; the master is away"}
    # Each show looks at this clock once or twice, and a second goes by each time.
    assert 4 <= len(said) <= 5


@pytest.mark.parametrize(
    ("terminal", "kind", "tty"),
    [("xterm", Live, True), ("dumb", Lines, True), ("", Lines, True), ("xterm", Lines, False)],
)
def test_who_can_redraw_has_a_table(terminal: str, kind: type, tty: bool) -> None:
    """A table is for terminals that can move their cursor; files, pipes and dumb terminals have lines."""
    assert isinstance(display(Screen(80, 24) if tty else io.StringIO(), terminal), kind)

"""The benchmarks' own arithmetic: medians, tables, and how a build's time is divided among its steps."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import __main__ as command
from bench import (
    burst,
    checkout,
    engines,
    first_step,
    installable,
    moments,
    price,
    publish,
    published,
    report,
    uploads,
)

CHECKOUT = Path(__file__).resolve().parents[2]


def cell(text: str, row: str, column: int) -> str:
    [line] = [line for line in text.splitlines() if line.startswith(f"| {row} |")]
    return line.split("|")[column].strip()


def test_help_lists_the_names_and_measures_nothing() -> None:
    """Whoever asks what there is gets the names."""
    told = subprocess.run(
        [sys.executable, "-m", "bench", "--help"], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert told.returncode == 0, told.stderr
    names = told.stdout.partition("names: ")[2].replace("\n", " ").partition(";")[0].split(",")
    assert [name.strip() for name in names] == [
        "price", "first-step", "engines", "installable", "checkout", "published", "burst", "upload",
        "openstack-burst", "openstack-single", "openstack-outage", "openstack-stop", "openstack-cycles",
        "openstack-killed", "bridge-published", "bridge-killed", "publish",
    ]  # fmt: skip


def test_an_unknown_name_is_refused() -> None:
    """A typo measures nothing."""
    with pytest.raises(SystemExit) as refused:
        command.main(["prize"])
    assert refused.value.code == 2


@pytest.mark.parametrize(
    "arguments", [["price", "--write"], ["openstack-stop", "--write"], ["--runs", "1", "--write"]]
)
def test_only_a_full_run_is_written_down(arguments: list[str]) -> None:
    """The page is of one run of everything, with the number of runs that it says."""
    with pytest.raises(SystemExit) as refused:
        command.main(arguments)
    assert refused.value.code == 2


def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: Any) -> Path:
    page = tmp_path / "performance.md"
    monkeypatch.setattr(command, "PAGE", page)
    monkeypatch.setattr(command, "NAMES", {"one": "bench.one"})
    monkeypatch.setattr(command, "OPENSTACK", {})
    monkeypatch.setattr(command, "BRIDGE", {})
    monkeypatch.setattr(command, "SIZE", {})
    monkeypatch.setitem(sys.modules, "bench.one", SimpleNamespace(run=run))
    return page


def test_nothing_is_written_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report is printed; the page is for `--write`, and names what missed its bar."""
    made = report.Report(
        "One", "method", "meaning", [report.Row("speed", "1", "2", "0.5", "at least 1", met=False)]
    )
    page = fake(monkeypatch, tmp_path, lambda directory: made)
    assert command.main(["--directory", str(tmp_path)]) == 0
    assert made.markdown() in capsys.readouterr().out
    assert not page.exists()
    assert command.main(["--directory", str(tmp_path), "--write"]) == 0
    assert made.markdown() in page.read_text()
    assert "- One: speed" in page.read_text()
    assert list(tmp_path.iterdir()) == [page]


def test_a_benchmark_that_breaks_is_said_so_and_keeps_the_page(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A page with a figure missing would look as if there were none."""

    def broken(directory: Path) -> report.Report:
        (directory / "left").touch()
        raise RuntimeError("nginx does not listen")

    page = fake(monkeypatch, tmp_path, broken)
    assert command.main(["--directory", str(tmp_path), "--write"]) == 1
    told = capsys.readouterr().err
    assert "nginx does not listen" in told
    assert "one could not be measured" in told
    assert not page.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_part_of_the_page_is_replaced_and_the_other_kept() -> None:
    """Each part is of one run, and what a person added to the other stays; a heading below is no part."""
    old = "# A\n\nold\n\n## B\n\n| # B |\n"
    both = command.with_part(old, "B", "# B\n\nnew\n\n")
    assert both == "# A\n\nold\n\n## B\n\n| # B |\n\n# B\n\nnew\n"
    assert command.with_part(both, "A", "# A\n\nagain\n") == "# A\n\nagain\n\n# B\n\nnew\n"
    assert command.with_part("", "A", "# A\n") == "# A\n"


def test_a_table_is_aligned_and_a_bar_does_not_break_it() -> None:
    """Markdown that GitHub shows as a table."""
    assert report.table(["a", "b"], [["x|y", "1"]]) == "| a | b |\n| --- | ---: |\n| x/y | 1 |"


def test_a_report_says_which_bars_are_met() -> None:
    """A figure without a bar is neither met nor missed."""
    made = report.Report(
        "Title", "How.", "What of it.",
        [
            report.Row("a", "1 s", "2 s", "0.50", *report.at_most(0.6, 0.5, "0.6")),
            report.Row("b", "1", "", "", *report.at_least(2, 1, "2")),
            report.Row("c", "1"),
        ],
        [report.Table("More", ["x"], [["y"]])],
    )  # fmt: skip
    assert made.missed == ["b"]
    assert made.markdown() == (
        "## Title\n\nHow.\n\n"
        "| what | ours | the other side | ratio | bar |\n| --- | ---: | ---: | ---: | ---: |\n"
        "| a | 1 s | 2 s | 0.50 | at most 0.6: met |\n"
        "| b | 1 |  |  | at least 2: **missed** |\n"
        "| c | 1 |  |  |  |\n\n"
        "More:\n\n| x |\n| --- |\n| y |\n\nWhat of it.\n"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0123, "12.3 ms"),
        (0.0999, "99.9 ms"),
        (0.1, "0.10 s"),
        (9.994, "9.99 s"),
        (83.04, "83.0 s"),
        (-0.05, "-50.0 ms"),
    ],
)
def test_times_as_people_read_them(value: float, text: str) -> None:
    """Three figures that mean something."""
    assert report.seconds(value) == text


def test_spread_percentile_and_medians() -> None:
    """By hand: of 1, 2 and 9 the median is 2; of twenty values the 95th percentile is the nineteenth."""
    assert report.spread([9.0, 1.0, 2.0]) == "2.00 s (1.00 s to 9.00 s)"
    assert report.percentile(range(20, 0, -1), 95) == 19
    assert report.percentile([7.0], 95) == 7.0
    assert report.percentile([1.0, 2.0], 50) == 1.0
    assert report.medians([{"a": 1.0, "b": 4.0}, {"a": 3.0}, {"a": 2.0}]) == {"a": 2.0, "b": 0.0}


LINES = """\
99.000000 step 6 earlier
99.500000 start 6
101.000000 build local-1
101.500000 step 7 worker_preparation
102.000000 start 7
103.000000 finish 7
103.250000 step 8 two words
103.500000 start 8
105.000000 received tiny
106.000000 finish 8
106.125000 step 9 publish
106.250000 start 9
107.750000 finish 9
"""


def test_moments_are_read_with_the_names_of_steps() -> None:
    """Steps are told by number; their names are told once, perhaps before the time that is asked for."""
    found = moments.read(LINES, 103.4)
    assert found[0] == (103.5, "start", "two words")
    assert found[1] == (105.0, "received", "tiny")
    assert moments.first(moments.read(LINES), "start") == 99.5
    assert moments.first(found, "start", "publish") == 106.25
    with pytest.raises(LookupError, match="nothing is told of start earlier"):
        moments.first(found, "start", "earlier")


def test_a_builds_time_is_divided_without_rest() -> None:
    """What is in no step is before them or between; a step that runs at the end counts until then."""
    found = moments.durations(moments.read(LINES, 100.0), 100.0, 107.0)
    assert found == {
        "before the steps": 2.0, "worker_preparation": 1.0, "two words": 2.5, "publish": 0.75,
        "between the steps": 0.75,
    }  # fmt: skip
    assert sum(found.values()) == 7.0


def test_what_follows_the_last_step_is_between_the_steps() -> None:
    """A build that is looked at later than it ended."""
    found = moments.durations(moments.read(LINES, 100.0), 100.0, 108.0)
    assert found["publish"] == 1.5
    assert found["between the steps"] == 1.0
    assert sum(found.values()) == 8.0


def test_every_step_of_a_build_is_compared_with_something() -> None:
    """A step that is renamed or new is not lost from the table."""
    found = price.phases({"before the steps": 0.5, "worker_preparation": 1.0, "look": 0.25, "packages": 3.0})
    assert found["start"] == 1.75
    assert found["packages"] == 3.0
    assert sum(found.values()) == 4.75
    with pytest.raises(LookupError, match="PHASES does not say what is compared with bake"):
        price.phases({"bake": 1.0})


def test_the_phases_are_the_steps_of_a_build() -> None:
    """Names typed by hand in the benchmark are those of the product's steps."""
    from steps import build, prepare, publish
    from steps.script import Script

    names = {
        one.name
        for module in (build, prepare, publish)
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, Script) and "name" in vars(one)
    }
    compared = {step for steps in price.PHASES.values() for step in steps}
    assert names | {prepare.AlreadyPublished.name, publish.Publish.name} <= compared


def test_the_scripts_marks_are_its_phases() -> None:
    """What comes before the first mark is the start, what comes after the last is the rsync."""
    text = "AT 101.5 checkout\nnoise\nAT 103.0 packages\nAT 110.0 end\n"
    assert price.marks(text, 101.0, 110.25) == {
        "start": 0.5,
        "checkout": 1.5,
        "packages": 7.0,
        "upload": 0.25,
    }
    marked = {
        line.removeprefix("at ").strip("'") for line in price.SCRIPT.splitlines() if line.startswith("at ")
    }
    assert marked - {"end"} <= set(price.PHASES)


def test_the_price_is_told_by_step() -> None:
    """11 s against 10 s are within the bar, 12 s are not; the difference is shown where it arises."""
    ours = {"total": 11.0, "cpu": 6.0, "elsewhere": 1.0, "start": 1.5, "packages": 9.5}
    hand = {"total": 10.0, "cpu": 5.0, "elsewhere": 1.0, "start": 0.5, "packages": 9.5}
    made = price.report([ours], [hand])
    assert made.missed == []
    assert cell(made.markdown(), "request to published", 4) == "1.100"
    assert cell(made.markdown(), "CPU of it, all processes", 4) == "1.200"
    assert cell(made.markdown(), "start", 5) == "+10.0 %"
    assert price.report([{**ours, "total": 12.0}], [hand]).missed == ["request to published"]


def test_crun_may_start_three_tenths_of_a_second_later() -> None:
    """The bar is the difference of the medians until the first step."""
    script = {"first step": 1.0, "first command": 1.1}
    within = engines.report([{"first step": 1.29, "first command": 2.0}], [script])
    assert within.missed == []
    assert "0.29 s later" in within.markdown()
    beyond = engines.report([{"first step": 1.31, "first command": 1.1}], [script])
    assert beyond.missed == ["POST to first step"]


def test_the_set_up_is_taken_off_before_the_bar() -> None:
    """1.1 times 1 s and 2 s of set-up: 3.05 s are within, 3.2 s are not."""
    names = ("POST answered", "machine asked for", "connected", "attached", "first step", "first command")
    stock = dict.fromkeys(names, 1.0)
    hand = {"inside the root": 0.5, "connected": 1.5, "attached": 2.0}
    within = first_step.report([dict.fromkeys(names, 3.05)], [stock], [hand])
    assert within.missed == []
    assert cell(within.markdown(), "POST to first step, less the set-up", 4) == "1.05"
    beyond = first_step.report([dict.fromkeys(names, 3.2)], [stock], [hand])
    assert beyond.missed == ["POST to first step, less the set-up"]


def test_installable_is_when_apt_says_so() -> None:
    """`version` may be in time and apt too late."""
    found = {"upload": 1.0, "publish begins": 0.1, "served": 0.5, "updated": 2.5, "downloaded": 3.0}
    assert installable.report([found]).missed == ["last byte to `apt-get update` done"]


def test_a_checkout_with_another_version_is_no_figure() -> None:
    """Fewer bytes are worth nothing if the version is wrong."""
    ours, full = checkout.Clone(10, 1.0, "v1-5-gabc"), checkout.Clone(100, 2.0, "v1-5-gabc")
    made = checkout.report([ours], [full])
    assert (made.missed, cell(made.markdown(), "bytes received", 4)) == ([], "0.100")
    assert checkout.report([ours._replace(bytes=21)], [full]).missed == ["bytes received"]
    with pytest.raises(RuntimeError, match="the versions differ: v1-4-gabc, v1-5-gabc"):
        checkout.report([ours._replace(version="v1-4-gabc")], [full])


def test_the_proxy_counts_what_the_client_receives() -> None:
    """7 bytes there, 300,000 back; and from then on anew."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                assert peer.recv(100) == b"request"
                peer.sendall(b"x" * 300_000)

        thread = threading.Thread(target=serve)
        thread.start()
        proxy = checkout.CountingProxy(server.getsockname()[1])
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=30) as client:
            client.sendall(b"request")
            received = 0
            while data := client.recv(1 << 16):
                received += len(data)
        thread.join()
        proxy.close()
    assert (received, proxy.take(), proxy.take()) == (300_000, 300_000, 0)


def test_asking_for_what_is_published_has_a_bar_for_sha1s_only() -> None:
    """Twice the plain GET is the limit; what a ref costs is shown."""
    times = {"sha1": [0.021], "GET": [0.01], "ref": [0.2]}
    made = published.report({True: times, False: {**times, "sha1": [0.02]}})
    assert made.missed == ["POST of a sha1, connections kept"]


def test_a_burst_needs_every_answer_and_one_build_a_key() -> None:
    """A refusal, an answer that is missing, a build too many, or two ids for one key: each is a miss."""
    good = [burst.Answered(200, 0.1, f"key{number % 10}", number % 10) for number in range(200)]
    assert burst.report(good, [10], 1.0).missed == []
    assert burst.report(good, [11], 1.0).missed == ["builds"]
    for bad in (
        burst.Answered(500, 0.1, "", 0),
        burst.Answered(403, 0.1, "", 0),
        burst.Answered(0, 0.1, "", 0),
    ):
        assert burst.report([bad, *good[1:]], [10], 1.0).missed == ["answers"]
    assert burst.report(good[1:], [10], 1.0).missed == ["answers"]
    assert burst.report([good[0]._replace(buildrequest=99), *good[1:]], [10], 1.0).missed == [
        "buildrequests of one package_key"
    ]


UPLOADS = """\
| files | way | MiB/s | of nginx | server CPU s/GiB | lag ms (worst) | own lag ms (worst) | growth MiB |
|---|---|---:|---:|---:|---:|---:|---:|
| set | curl -T to nginx, DAV | 300 | 1.00 | 1.00 | 1 (2) | 0 (1) | 0 |
| set | curl -T to the package server | 290 | 0.97 | 1.50 | 40 (60) | 1 (2) | 10 |
| set | upload.py to the package server | 200 | 0.67 | 1.50 | 40 (60) | 1 (2) | 10 |
"""


@pytest.mark.parametrize(
    ("old", "new", "missed"),
    [
        ("", "", []),
        ("| 290 | 0.97 |", "| 310 | 0.10 |", []),
        ("| 290 | 0.97 |", "| 290 | 0.69 |", ["speed, set"]),
        ("0.97 | 1.50 |", "0.97 | 2.01 |", ["server CPU for a GiB, set"]),
        ("0.97 | 1.50 | 40", "0.97 | 1.50 | 51", ["reactor lag, set"]),
        (
            "0.97 | 1.50 | 40 (60) | 1 (2) | 10",
            "0.97 | 1.50 | 40 (60) | 1 (2) | 51",
            ["growth of memory, set"],
        ),
    ],
)
def test_the_bars_of_uploads(old: str, new: str, missed: list[str]) -> None:
    """Of the table that `bench.upload` makes, the row of `curl -T` to our server has the bars."""
    assert uploads.report(UPLOADS.replace(old, new, 1).splitlines()).missed == missed


def test_the_bars_of_publishing() -> None:
    """Packages of Ceph's size are published in a minute; debs and rpms each have the bar."""
    good = publish.Outcome(4_400_000_000, 20.0, 60.0, 40.0, 30.0, 2**26, 2**27)
    assert publish.report({"debs": good, "rpms": good}).missed == []
    assert publish.report({"debs": good, "rpms": good._replace(publish=60.1)}).missed == [
        "rpms: last byte to published"
    ]
    text = publish.report({"debs": good}).markdown()
    assert "| debs: last byte to published | 60.0 s | 30.0 s | 2.00 | at most 60 s: met |" in text
    assert "| bytes | 4.40 GB |" in text
    assert "| memory of the largest child | 128 MiB |" in text

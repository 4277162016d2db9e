"""What a job wants, and how it is pinned: golden rows, and what can't be read."""

from __future__ import annotations

import copy

import pytest
import yaml

from tests.teuthology_bridge.job_wants import DEFAULTS, ROWS, named
from teuthology_bridge.errors import WrongJob
from teuthology_bridge.wants import Want, pin, spell, wants

A, B, C = "a" * 40, "b" * 40, "c" * 40


def of(text: str, **given: str) -> list[Want]:
    """Give the wants of a job that is written as YAML."""
    return _of(yaml.safe_load(text), **given)


def _of(job: dict, **given: str) -> list[Want]:
    return wants(job, os_type=given.get("os_type"), os_version=given.get("os_version"), defaults=DEFAULTS)


def test_there_are_rows() -> None:
    """The golden rows are read, and no two have the same name."""
    assert len({row["name"] for row in ROWS}) == len(ROWS) >= 25


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_a_job_wants_what_its_row_says(row: dict) -> None:
    """Every golden row's wants are found, in order, with all of their places and nothing besides."""
    before = copy.deepcopy(row["job"])
    found = _of(row["job"], **{key: row[key] for key in ("os_type", "os_version") if key in row})
    said = []
    for want in found:
        places = [spell(path) for path in want.where]
        said.append([(want.project, want.arch, want.flavor), want.kind, want.value, *places])
    typed = []
    for target, *rest in row["wants"]:
        project, _, _, arch, flavor = target.split("-")
        typed.append([(project, arch, flavor), *rest])
    assert said == typed
    assert row["job"] == before


def test_defaults_are_told() -> None:
    """A want says what the job leaves to teuthology's defaults, as the default of debian surprises."""
    [want] = of("{os_type: debian, tasks: [{install: }]}")
    assert want.os_version == "8.0"
    assert want.assumed == "os_version is not set: teuthology's default for debian is 8.0"
    [want] = of("{tasks: [{install: }]}")
    assert "default is ubuntu" in want.assumed
    assert "22.04" in want.assumed
    [want] = of("{os_type: debian, os_version: 12, tasks: [{install: }]}")
    assert (want.os_version, want.assumed) == ("12", "")


def test_the_command_line_wins() -> None:
    """teuthology's --os-type and --os-version go before the job's, each for itself."""
    job = "{os_type: ubuntu, os_version: '22.04', tasks: [{install: }]}"
    [want] = of(job, os_version="20.04")
    assert (want.os_type, want.os_version) == ("ubuntu", "20.04")
    [want] = of(job, os_type="centos", os_version="8")
    assert (want.os_type, want.os_version) == ("centos", "8")


def test_an_empty_version_is_none() -> None:
    """An os_version without a value is as good as none."""
    [want] = of("{os_type: centos, os_version: , tasks: [{install: }]}")
    assert want.os_version == "9.stream"


def test_a_want_says_itself() -> None:
    """A want is one line that tells what for whom, and where in the job it stands."""
    [want] = of("{os_type: ubuntu, os_version: '22.04', tasks: [{print: x}, {install: {branch: reef}}]}")
    assert str(want) == "ceph branch reef for ubuntu 22.04 x86_64, flavor default (tasks[1]: install)"
    assert (want.ref, want.sha1) == ("reef", "")
    [want] = of(f"{{tasks: [{{install: {{sha1: {A}}}}}]}}")
    assert (want.ref, want.sha1) == ("", A)


def test_upper_case_sha1() -> None:
    """A sha1 in upper case is the commit it names, as the master and its URLs spell it."""
    [want] = of(f"{{tasks: [{{install: {{sha1: {A.upper()}}}}}]}}")
    assert want.value == A


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (
            "{tasks: [{install: {sha1: 0123456701234567012345670123456701234567}}]}",
            (
                "sha1 27127011408317359623716296368404855 of tasks[0]: install, or of overrides: install: ceph,"
                " is what YAML reads as a number, and digits are lost: put the sha1 into quotes"
            ),
        ),
        (
            "{tasks: [{install: }], overrides: {install: {ceph: {sha1: 0.5e+40}}}}",
            (
                "sha1 5e+39 of tasks[0]: install, or of overrides: install: ceph,"
                " is what YAML reads as a number, and digits are lost: put the sha1 into quotes"
            ),
        ),
        (
            "{tasks: [{install: {sha1: abc1234}}]}",
            (
                "sha1 abc1234 of tasks[0]: install, or of overrides: install: ceph,"
                " is not the 40 hexadecimal digits of a commit"
            ),
        ),
        (
            "{tasks: [{install: {branch: [main]}}]}",
            "branch of tasks[0]: install must be a text, not ['main']",
        ),
        (
            "{tasks: [{install: {flavor: {a: b}}}]}",
            "flavor of tasks[0]: install must be a text, not {'a': 'b'}",
        ),
        (
            "{tasks: [{install.upgrade: {all: reef}}]}",
            "tasks[0]: install.upgrade: all must be a mapping, not 'reef'",
        ),
        (
            "{tasks: [{install: }], overrides: {install: {ceph: main}}}",
            "overrides: install: ceph must be a mapping, not 'main'",
        ),
        (
            "{tasks: [{install: }], overrides: {install: [ceph]}}",
            "overrides: install must be a mapping, not ['ceph']",
        ),
        (
            "{tasks: [{install: {branch: {a: b}}}], overrides: {install: {ceph: {branch: main}}}}",
            "tasks[0]: install: branch is {'a': 'b'}, and 'main' of the overrides can't be merged into it",
        ),
        (
            "{os_type: beos, tasks: [{install: }]}",
            (
                "teuthology has no default os_version for os_type 'beos', only for alma, centos, debian, fedora,"
                " opensuse, rhel, rocky, sle, ubuntu"
            ),
        ),
    ],
)
def test_what_can_not_be_read(job: str, said: str) -> None:
    """What install would stumble over, or ask in vain for, is refused with a sentence that says where it is."""
    with pytest.raises(WrongJob) as caught:
        of(job)
    assert str(caught.value) == said


def test_a_wrong_sha1_that_nobody_looks_at_is_no_error() -> None:
    """A sha1 beside a branch may be anything: install takes the branch."""
    [want] = of("{tasks: [{install: {branch: main, sha1: 12}}]}")
    assert (want.kind, want.value) == ("branch", "main")


def test_an_install_that_is_no_task() -> None:
    """A key `install` with a plain value is something else's, and a list below it is looked through."""
    assert of("{tasks: [{ansible: {vars: {install: true}}}]}") == []
    [want] = of("{install: [{install: {branch: x}}]}")
    assert want.where == (("install", 0, "install"),)


def test_overrides_are_not_tasks() -> None:
    """What is below `overrides` is no task, wherever that stands."""
    assert of("{tasks: [{x: {overrides: {install: {branch: x}}}}], overrides: {install: {ceph: {}}}}") == []


def test_empty_nodes() -> None:
    """Sections without a value are as good as absent."""
    assert of("{tasks: [{install.upgrade: }], overrides: , roles: }") == []
    [want] = of("{tasks: [{install: }], overrides: {install: }}")
    assert want.value == "main"


def test_pin_writes_every_place_and_the_overrides() -> None:
    """A branch of the overrides becomes its commit there and in every task, as long as all have the same."""
    job = yaml.safe_load("""
        overrides: {install: {ceph: {branch: main, flavor: default}}}
        tasks: [{install: }, {sequential: [{install: {exclude_packages: [x]}}]}]
    """)
    [want] = _of(job)
    pin(job, want, A)
    assert job == {
        "overrides": {"install": {"ceph": {"flavor": "default", "sha1": A}}},
        "tasks": [
            {"install": {"sha1": A}},
            {"sequential": [{"install": {"exclude_packages": ["x"], "sha1": A}}]},
        ],
    }


def test_pin_takes_a_reference_away_from_overrides_that_would_win() -> None:
    """A sha1 of the overrides wins over a task's: it goes where an install beside it is pinned to another commit."""
    job = yaml.safe_load(f"""
        overrides: {{install: {{ceph: {{sha1: {C}, flavor: default}}}}}}
        roles: [[mon.a]]
        tasks: [{{install: {{branch: reef}}}}, {{install.upgrade: {{mon.a: }}}}]
    """)
    reef, new = _of(job)
    pin(job, reef, A)
    pin(job, new, C)
    assert job["overrides"] == {"install": {"ceph": {"flavor": "default"}}}
    assert job["tasks"] == [{"install": {"sha1": A}}, {"install.upgrade": {"mon.a": {"sha1": C}}}]


def test_pin_leaves_other_wants_as_they_are() -> None:
    """One want pinned changes nothing of what the others are, in whichever order it goes."""
    text = """
        overrides: {install: {ceph: {branch: main}}}
        roles: [[mon.a], [mon.b]]
        tasks: [{install: {tag: v1}}, {install: }, {install.upgrade: {mon.a: , mon.b: {branch: reef}}}]
    """
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        job = yaml.safe_load(text)
        found = _of(job)
        assert [want.value for want in found] == ["v1", "main", "reef"]
        meant = {path: (want.kind, want.value) for want in found for path in want.where}
        for index in order:
            pin(job, found[index], "abc"[index] * 40)
            meant |= dict.fromkeys(found[index].where, ("sha1", "abc"[index] * 40))
            assert {path: (want.kind, want.value) for want in _of(job) for path in want.where} == meant


def test_pin_does_not_follow_aliases() -> None:
    """A mapping that YAML's aliases put into two places is pinned in each for itself."""
    job = yaml.safe_load("""
        overrides: {install: {ceph: {tag: v2}}}
        roles: [[mon.a]]
        tasks: [{install: &it {branch: reef}}, {install.upgrade: {mon.a: *it}}, {exec: *it}]
    """)
    tag, branch = _of(job)
    pin(job, tag, A)
    pin(job, branch, B)
    assert job["tasks"] == [
        {"install": {"sha1": A}},
        {"install.upgrade": {"mon.a": {"sha1": B}}},
        {"exec": {"branch": "reef"}},
    ]


def test_pin_keeps_to_its_project() -> None:
    """Pinning one project's packages leaves the tasks and the overrides of another alone."""
    text = """
        overrides: {install: {ceph: {branch: main}, samba: {branch: master}}}
        tasks: [{install: }, {install: {project: samba}}]
    """
    job = yaml.safe_load(text)
    pin(job, _of(job)[0], A)
    assert job["overrides"]["install"]["samba"] == {"branch": "master"}
    assert job["tasks"][1] == {"install": {"project": "samba"}}


def test_pin_invents_no_overrides() -> None:
    """Where the overrides name no commit, none is put there."""
    for text in (
        "tasks: [{install: }]",
        "{overrides: {install: {ceph: {flavor: debug}}}, tasks: [{install: }]}",
    ):
        job = yaml.safe_load(text)
        overrides = copy.deepcopy(job.get("overrides"))
        pin(job, _of(job)[0], A)
        assert job.get("overrides") == overrides
        assert job["tasks"] == [{"install": {"sha1": A}}]

"""Jobs of a run, from what teuthology-suite's dry run prints and from files."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from tests.teuthology_bridge import dry_run_output as said
from teuthology_bridge.jobs import NoJobs, parse, read

NAMES = ["small/{distros/u20.04 tasks/install}", "small/{distros/u22.04 tasks/upgrade}"]


@pytest.mark.parametrize(
    "text", [said.OUTPUT, said.BOTH, said.OUTPUT + said.LOG], ids=["alone", "mixed", "after"]
)
def test_jobs_are_read_out_of_the_log(text: str) -> None:
    """Every job is found whole, with the log between the jobs, after them or elsewhere, and nothing else is a job."""
    found = parse(text, "it")
    assert [job.name for job in found.jobs] == NAMES
    assert found.problems == []
    first, second = (job.config for job in found.jobs)
    assert first["tasks"][2] == {"exec": {"mon.a": ["set -e\necho one\n"]}}
    assert first["overrides"]["install"]["ceph"]["sha1"] == said.SHA1
    assert second["tasks"][0] == {"install": {"branch": "quincy"}}
    assert second["verbose"] is True
    assert found.common("name") == "lab-2026-11-24_17:46:45-small-main-distro-default-smithi"
    assert found.common("seed") == "6039"
    assert found.common("os_version") == ""


def test_what_all_jobs_of_a_suite_share_is_no_job() -> None:
    """The base configuration in the log, and the notes before and after the jobs, would otherwise be jobs that want main."""
    assert parse(said.MEMO + said.RESULTS, "it").jobs == []
    assert parse(said.MEMO + said.RESULTS, "it").others == 2
    assert parse(said.BEFORE, "it").jobs == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (said.LOG, "run it with --dry-run -vv"),
        ("\n".join(line for line in said.LOG.splitlines() if "DEBUG" not in line), "holds the log"),
    ],
    ids=["-v", "none"],
)
def test_too_few_words_are_told_from_no_jobs(text: str, sentence: str) -> None:
    """A log without jobs, as fewer than two -v give, is said to be one, with what to do."""
    with pytest.raises(NoJobs, match=sentence):
        parse(text, "it")


def test_a_job_that_was_not_printed_is_missed() -> None:
    """teuthology-suite goes on when teuthology-schedule fails to print a job: the log tells."""
    found = parse(
        said.BOTH.replace(said.OTHER, "Traceback (most recent call last):\n  x\nOSError: y\n"), "it"
    )
    assert [job.name for job in found.jobs] == NAMES[:1]
    assert [str(one) for one in found.problems] == [
        "it: lacks 1 of the 2 jobs that teuthology-suite would schedule"
    ]


def test_a_broken_document_is_one_problem() -> None:
    """What is no YAML is named by its number, and the others are read."""
    found = parse("---\ntasks: [\n---\ntasks:\n- install:\n", "it")
    assert [job.name for job in found.jobs] == ["document 2 of it"]
    [problem] = found.problems
    assert problem.what == "document 1 of it"
    assert problem.sentence.startswith("is not YAML: ")


def test_files_and_directories_are_read(tmp_path: Path) -> None:
    """All YAML files below a directory are, jobs among them by their `tasks`, and so is a file, whatever its name."""
    (tmp_path / "jobs/a").mkdir(parents=True)
    (tmp_path / "jobs/a/one.yaml").write_text("description: first\ntasks:\n- install:\n")
    (tmp_path / "jobs/a/summary.yaml").write_text("success: true\n")
    (tmp_path / "jobs/two.yml").write_text("tasks:\n- install:\n")
    (tmp_path / "jobs/notes.txt").write_text("tasks: [\n")
    (tmp_path / "jobs/binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "saved").write_text(said.BOTH)
    found = read([str(tmp_path / "jobs"), str(tmp_path / "saved")])
    assert [job.name for job in found.jobs] == ["two.yml", "first", *NAMES]
    assert found.others == 3
    [problem] = found.problems
    assert str(problem).startswith("binary.yaml: can't be read: ")


def test_standard_input_is_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` is read where the output of teuthology-suite is piped into it."""
    monkeypatch.setattr("sys.stdin", io.StringIO(said.OUTPUT))
    assert [job.name for job in read(["-"]).jobs] == NAMES


@pytest.mark.parametrize("operator", ["%", "+", "$"])
def test_a_suite_is_no_directory_of_jobs(tmp_path: Path, operator: str) -> None:
    """Fragments look like jobs, and would want what no job wants: that is said instead."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / operator).touch()
    (tmp_path / "tasks/one.yaml").write_text("tasks:\n- install:\n")
    with pytest.raises(NoJobs, match="have teuthology-suite make jobs"):
        read([str(tmp_path)])


def test_what_is_not_there_may_be_meant_for_teuthology_suite(tmp_path: Path) -> None:
    """A path that is not there is told with the way to give arguments."""
    with pytest.raises(NoJobs, match="after `--`"):
        read([str(tmp_path / "rados")])

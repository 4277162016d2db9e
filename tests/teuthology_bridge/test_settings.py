"""Settings come from the environment, the job and teuthology's YAML, in this order; all that is wrong is said at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from teuthology_bridge.errors import WrongJob, WrongSettings
from teuthology_bridge.settings import Settings, sizes


def refused(environment: dict[str, str] | None = None, site: object = None, job: object = None) -> str:
    with pytest.raises(WrongSettings) as caught:
        Settings.load(environment or {}, site, job)
    return str(caught.value)


def test_what_holds_when_nothing_is_set() -> None:
    """Without any setting, the servers are those of a master on this machine."""
    settings = Settings.load({}, None, None)
    assert settings == Settings(
        url="http://127.0.0.1:8010/",
        packages_url="http://127.0.0.1:8011/",
        token="",
        look_timeout=10,
        ask_timeout=60,
        limit=43200,
        unreachable_limit=1800,
    )


def test_who_wins() -> None:
    """The environment goes before the job, and the job before the site."""
    site = {"url": "http://site/", "packages_url": "http://site/p", "limit": 1, "token": "site"}
    job = {"packages_url": "http://job/p/", "limit": 2, "token": "job", "good_machine": {"cpus": 4}}
    environment = {"BUILDPACKAGES_LIMIT": " 3.5 ", "BUILDPACKAGES_URL": "", "HOME": "/"}
    settings = Settings.load(environment, site, job)
    assert (settings.url, settings.packages_url) == ("http://site/", "http://job/p/")
    assert (settings.limit, settings.token) == (3.5, "job")


def test_a_token_file(tmp_path: Path) -> None:
    """A token may stand in a file, and one of the environment wins over it, also as a file; a job may name none."""
    (tmp_path / "far").write_text("far\n")
    (tmp_path / "near").write_text("near\n")
    for path in tmp_path.iterdir():
        path.chmod(0o600)
    site = {"token_file": str(tmp_path / "far")}
    assert Settings.load({}, site).token == "far"
    assert Settings.load({"BUILDPACKAGES_TOKEN_FILE": str(tmp_path / "near")}, site).token == "near"
    assert refused(job={"token_file": str(tmp_path / "near")}) == (
        "`token_file` in the job's `buildpackages` is not read: a job may name no file of the machine that runs it"
    )
    assert Settings.load({}, site).warnings == ()


def test_a_token_file_that_does_not_count_is_not_read(tmp_path: Path) -> None:
    """Where a place that goes before another gives a token, the other's file may be out of reach."""
    site = {"token_file": str(tmp_path / "nowhere")}
    assert Settings.load({"BUILDPACKAGES_TOKEN": "mine"}, site).token == "mine"
    assert refused(site=site)


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ("http://m:8010", "http://m:8010/"),
        ("http://m:8010//", "http://m:8010/"),
        ("https://m//a///b//", "https://m/a/b/"),
    ],
)
def test_a_url_has_single_slashes_however_it_is_written(written: str, read_as: str) -> None:
    """A slash too many or too few changes nothing, in whichever place a URL is set."""
    site = Settings.load({}, {"url": written, "packages_url": written})
    variables = Settings.load({"BUILDPACKAGES_URL": written, "BUILDPACKAGES_PACKAGES_URL": written})
    assert {site.url, site.packages_url, variables.url, variables.packages_url} == {read_as}


def test_a_token_file_that_everybody_reads(tmp_path: Path) -> None:
    """A token that others on the machine can read is used, and warned about."""
    path = tmp_path / "token"
    path.write_text("secret")
    path.chmod(0o644)
    settings = Settings.load({}, {"token_file": str(path)})
    assert settings.token == "secret"
    [warning] = settings.warnings
    assert warning == (
        f"the token_file {path} of `buildpackages` in teuthology's configuration can be read by everybody"
        " on this machine: chmod o-rwx it"
    )


def test_a_token_is_never_shown(tmp_path: Path) -> None:
    """No representation and no error holds the token."""
    assert "secret" not in repr(Settings.load({}, {"token": "secret"}))
    (tmp_path / "token").write_text("two secrets")
    (tmp_path / "token").chmod(0o600)
    for told in (
        refused(site={"token": "two secrets"}),
        refused(site={"token_file": str(tmp_path / "token")}),
    ):
        assert "holds no token: that is one word of ASCII characters" in told
        assert "secrets" not in told


def test_a_token_in_a_job() -> None:
    """A token in a job's configuration is used, and warned about, as teuthology shows whole jobs to everybody."""
    assert Settings.load({}, {"token": "secret"}).warnings == ()
    [warning] = Settings.load({}, None, {"token": "secret"}).warnings
    assert warning == (
        "`token` in the job's `buildpackages` is shown with the job: have a token_file in teuthology's"
        " configuration instead"
    )


SITE = {"url": "http://Site:80/a/", "token": "sites"}
NOT_SENT = "`url` in the job's `buildpackages` is another server than http://Site:80/a/: it is not sent the token for that one"


@pytest.mark.parametrize(
    ("environment", "job", "token", "warned"),
    [
        ({}, {"url": "http://site/b/"}, "sites", ()),
        ({}, {"limit": 1}, "sites", ()),
        ({}, {"url": "http://other/a/"}, "", (NOT_SENT,)),
        ({}, {"url": "https://site:80/a/"}, "", (NOT_SENT,)),
        ({}, {"url": "http://site:8010/a/"}, "", (NOT_SENT,)),
        ({"BUILDPACKAGES_TOKEN": "mine"}, {"url": "http://other/"}, "", (NOT_SENT,)),
        (
            {"BUILDPACKAGES_TOKEN": "mine", "BUILDPACKAGES_URL": "http://other/"},
            {"url": "http://b/"},
            "mine",
            (),
        ),
        ({"BUILDPACKAGES_URL": "http://other/"}, {"url": "http://b/"}, "sites", ()),
    ],
    ids=repr,
)
def test_whose_token_goes_where(
    environment: dict[str, str], job: dict[str, object], token: str, warned: tuple[str, ...]
) -> None:
    """A server that only a job names is not sent the operator's token, and that is said; the environment is the operator's."""
    settings = Settings.load(environment, SITE, job)
    assert (settings.token, settings.warnings) == (token, warned)


def test_a_job_with_a_server_and_a_token_of_its_own(tmp_path: Path) -> None:
    """A job's own token goes to the server that it names, whatever others there are, and theirs are not even read."""
    job = {"url": "http://other/", "token": "jobs"}
    site = {"token_file": str(tmp_path / "nowhere")}
    assert Settings.load({}, SITE, job).token == "jobs"
    assert Settings.load({"BUILDPACKAGES_TOKEN": "mine"}, site, job).token == "jobs"
    assert Settings.load({}, site, {"url": "http://other/"}).token == ""


def test_all_that_is_wrong_at_once() -> None:
    """Whoever has several mistakes sees them all, each with its place."""
    told = refused(
        {"BUILDPACKAGES_LIMIT": "soon"},
        {"packages_url": "ftp://x/", "urll": "http://x/", "token": "a", "token_file": "/nowhere/token"},
        {"limit": True},
    )
    assert told == (
        "`packages_url` in `buildpackages` in teuthology's configuration must be a URL as http://HOST:PORT/,"
        " not 'ftp://x/'; "
        "`urll` in `buildpackages` in teuthology's configuration is unknown; there are ask_timeout, limit,"
        " look_timeout, packages_url, token, token_file, unreachable_limit, url; "
        "token and token_file are both given by `buildpackages` in teuthology's configuration: give one; "
        "`limit` in the job's `buildpackages` must be a number of seconds, not True; "
        "BUILDPACKAGES_LIMIT must be a number of seconds, not 'soon'"
    )


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("url", "master:8010", "must be a URL as http://HOST:PORT/"),
        ("url", "http:///x", "must be a URL as http://HOST:PORT/"),
        ("url", "http://m:port/", "must be a URL, not"),
        ("url", "http://me:pw@m/", "must not hold a user or a password"),
        ("url", "http://m/?a=b", "without a query or a fragment"),
        ("url", "http://m/a b", "must be a URL in ASCII without blanks"),
        ("url", "http://münster/", "must be a URL in ASCII without blanks"),
        ("url", 8010, "must be a text, not 8010"),
        ("url", "", "must be a text, not ''"),
        ("limit", 0, "must be a number of seconds above 0"),
        ("limit", -1, "must be a number of seconds above 0"),
        ("limit", float("inf"), "must be a number of seconds above 0"),
        ("limit", float("nan"), "must be a number of seconds above 0"),
        ("limit", "12h", "must be a number of seconds, not '12h'"),
        ("look_timeout", None, "must be a number of seconds, not None"),
        ("token", 5, "must be a text, not 5"),
        ("token_file", "/nowhere/token", "can't be read: "),
    ],
)
def test_what_is_no_value(key: str, value: object, why: str) -> None:
    """Each value that can't be is told with what it must be."""
    assert why in refused(site={key: value})


@pytest.mark.parametrize("told", [[], "x", 3])
def test_what_is_no_mapping(told: object) -> None:
    """A configuration that is no mapping is told as that."""
    assert "must be a mapping, not" in refused(job=told)


def test_a_variable_that_means_nothing() -> None:
    """A variable with our prefix that is unknown is warned about, as another program's may be so called."""
    [warning] = Settings.load({"BUILDPACKAGES_URI": "http://x/"}).warnings
    assert warning.startswith(
        "the variable BUILDPACKAGES_URI means nothing; there are BUILDPACKAGES_ASK_TIMEOUT"
    )


@pytest.mark.parametrize("name", ["SETTINGS", "SCRATCH", "MIRROR", "LAB", "STAND_IN"])
def test_a_variable_of_the_master(name: str) -> None:
    """What the master and its tests read is no mistake where both run."""
    assert Settings.load({f"BUILDPACKAGES_{name}": "x"}) == Settings()


def test_the_run_of_a_program_is_no_setting() -> None:
    """What the master calls this run can't be set, so that no two runs are taken for one."""
    assert "`job` in the job's `buildpackages` is unknown" in refused(job={"job": "mine"})


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({}, {}),
        ({"good_machine": None, "canonical_tags": True}, {}),
        (
            {"min_machine": {"disk": 40, "ram": 8000.0, "cpus": 1}},
            {"min_machine": {"disk": 40, "ram": 8000, "cpus": 1}},
        ),
        (
            {"good_machine": {"cpus": 16}, "min_machine": {}},
            {"good_machine": {"cpus": 16}, "min_machine": {}},
        ),
    ],
)
def test_sizes(config: dict[str, Any], found: dict[str, dict[str, int]]) -> None:
    """Sizes are taken as far as they are given, in whole numbers."""
    assert sizes(config) == found


def test_sizes_that_are_none() -> None:
    """All that is wrong with the sizes is said at once, and is the job's fault."""
    with pytest.raises(WrongJob) as caught:
        sizes({"good_machine": [4], "min_machine": {"disk": "40", "ram": -1, "cpus": True, "gpus": 1}})
    assert str(caught.value) == (
        "`good_machine` in the job's `buildpackages` must be a mapping of disk, ram, cpus, not [4];"
        " `disk` of `min_machine` in the job's `buildpackages` must be a whole number, not '40';"
        " `ram` of `min_machine` in the job's `buildpackages` must be a whole number, not -1;"
        " `cpus` of `min_machine` in the job's `buildpackages` must be a whole number, not True;"
        " `min_machine` in the job's `buildpackages` has no `gpus`; there are disk (GB), ram (MB) and cpus"
    )


def test_sizes_of_a_site() -> None:
    """A site's sizes are those of all its jobs, and a job's go before them part by part; wrong ones are wrong settings."""
    site = {"good_machine": {"cpus": 16, "ram": 64000}, "canonical_tags": True}
    machines = Settings.load({}, site, {"good_machine": {"cpus": 2}}).machines
    assert machines == {"good_machine": {"cpus": 16, "ram": 64000}}
    assert sizes({}, machines) == machines
    assert sizes({"good_machine": {"cpus": 2}, "min_machine": {"disk": 1}}, machines) == {
        "good_machine": {"cpus": 2, "ram": 64000},
        "min_machine": {"disk": 1},
    }
    assert refused(site={"min_machine": {"ram": "much"}}) == (
        "`ram` of `min_machine` in `buildpackages` in teuthology's configuration must be a whole number, not 'much'"
    )

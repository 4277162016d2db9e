"""Settings: what an operator may write, and what is said about everything else."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from master.project_settings import Project, RecipeSettings
from master.settings import Git, Packages, Settings, SettingsError, default_path
from workers.engine import Limits
from workers.openstack_settings import CloudSettings, OpenStackSettings

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "settings.example.yaml"
LEAST = """\
git:
  allowed: [https://github.com/]
targets: [ceph-deb-jammy-x86_64-default]
"""


def read(directory: Path, text: str) -> Settings:
    """Read a settings file of this text."""
    path = directory / "settings.yaml"
    path.write_text(text)
    return Settings.from_file(path)


def problems(directory: Path, text: str) -> list[str]:
    """Give what is said about a settings file, line by line, without the first."""
    with pytest.raises(SettingsError) as caught:
        read(directory, text)
    first, *rest = str(caught.value).split("\n")
    assert first == f"{directory / 'settings.yaml'}:"
    return [line.removeprefix("  ") for line in rest]


def uncommented(text: str) -> str:
    """Give the example with each key that is commented out put in force, and prose left out."""
    lines = []
    for line in text.splitlines():
        indent, mark, rest = line.partition("# ")
        if not mark:
            lines.append(line)
        elif not indent.strip() and re.match(r' *(- )?("[^"]+"|[A-Za-z_]+):( |$)', rest):
            lines.append(indent + rest)
    return "\n".join(lines)


def keys_of(kind: Any) -> dict[str, Any]:
    """Give every key that the settings have, nested as in the file."""
    return {
        field.name: keys_of(field.default_factory)
        if dataclasses.is_dataclass(field.default_factory)
        else None
        for field in dataclasses.fields(kind)
    }


def nested_keys(data: Any, known: dict[str, Any]) -> dict[str, Any]:
    """Give the keys that a file has, as deep as the settings have sections."""
    return {key: nested_keys(value, known[key]) if known.get(key) else None for key, value in data.items()}


def test_the_example_is_right_as_it_stands(tmp_path: Path) -> None:
    """The example, copied and not edited, is accepted, and is what the defaults are."""
    settings = read(tmp_path, EXAMPLE.read_text())
    assert settings.git.allowed == ("https://github.com/",)
    assert settings.projects == read(tmp_path, LEAST).projects
    assert [target.name for target in settings.selected_targets] == ["ceph-deb-bookworm-x86_64-default"]


def test_nothing_untested_is_on_in_the_example(tmp_path: Path) -> None:
    """The example turns on only targets that the tests build."""
    for target in read(tmp_path, EXAMPLE.read_text()).selected_targets:
        assert target.untested == "", target


def test_the_example_has_every_key() -> None:
    """Every key that the settings have stands in the example, in force or commented out, and no other."""
    data = yaml.safe_load(uncommented(EXAMPLE.read_text()))
    known = {**keys_of(Settings), "git": keys_of(Git)}
    known["workers"]["openstack"] = keys_of(OpenStackSettings)
    assert nested_keys(data, known) == known
    [cloud] = data["workers"]["openstack"]["clouds"]
    assert nested_keys(cloud, {}) == nested_keys(keys_of(CloudSettings), {})
    assert set(data["projects"]["ceph"]) == set(keys_of(Project))
    for key in keys_of(RecipeSettings):
        assert re.search(rf"^#   # #? +{key}:", EXAMPLE.read_text(), re.MULTILINE), key


def test_what_is_commented_out_is_the_default(tmp_path: Path) -> None:
    """Putting the commented lines of the example in force changes nothing but the two that have no default to show."""
    text = uncommented(EXAMPLE.read_text())
    data = yaml.safe_load(text)
    assert data.pop("database") == "postgresql://buildpackages@/buildpackages"
    users = data.pop("users")
    assert read(tmp_path, LEAST + yaml.safe_dump({"users": users})).users == users
    assert data["workers"]["local"]["mirrors"] == {}
    assert data["packages"].pop("worker_url") == read(tmp_path, LEAST).packages.internal_url
    openstack = data["workers"].pop("openstack")
    [cloud] = openstack["clouds"]
    has_no_default = ("cloud", "images")
    least = {**openstack, "clouds": [{name: cloud[name] for name in has_no_default}]}
    kind = TypeAdapter(OpenStackSettings)
    assert kind.validate_python(openstack) == kind.validate_python(least)
    assert openstack.pop("clouds_yaml") == "clouds.yaml"
    only_clouds = {"clouds": openstack["clouds"]}
    assert kind.validate_python(openstack) == kind.validate_python(only_clouds)
    assert read(tmp_path, yaml.safe_dump(data)) == read(tmp_path, EXAMPLE.read_text())


def test_every_key_of_the_example_is_explained() -> None:
    """No key of the example's own lines or sections stands without a comment above it or above its section."""
    explained = False
    for line in EXAMPLE.read_text().splitlines():
        if not line.strip():
            explained = False
        elif re.match(r" *# ?[^a-z]|# .* ", line) or re.match(r" *# [A-Za-z`].*[^:]$", line):
            explained = True
        elif re.match(r"[a-z_]+:|# [a-z_]+:", line):
            assert explained, line


def test_paths_are_taken_from_the_files_directory(tmp_path: Path) -> None:
    """Every path is absolute once read: a relative one is below the file's own directory, wherever the master was started."""
    settings = read(tmp_path, LEAST + "state: var/state\nworkers: {local: {scratch: /srv/scratch}}\n")
    assert settings.state == tmp_path / "var/state"
    assert settings.packages.directory == tmp_path / "packages"
    assert settings.packages.staging == tmp_path / "staging"
    assert settings.workers.local.roots == tmp_path / "roots"
    assert settings.workers.local.scratch == Path("/srv/scratch")
    assert settings.database == f"sqlite:///{tmp_path}/var/state/state.sqlite"


def test_a_database_of_the_operators_is_kept(tmp_path: Path) -> None:
    """A database's URL is used as it stands."""
    assert read(tmp_path, LEAST + "database: postgresql://x@/y\n").database == "postgresql://x@/y"


def test_the_fixed_ports_are_the_defaults(tmp_path: Path) -> None:
    """Unless set, the doors are the documented ones, all of them on loopback."""
    settings = read(tmp_path, LEAST)
    doors = (settings.www, settings.packages, settings.workers)
    assert [(door.host, door.port) for door in doors] == [
        ("127.0.0.1", 8010),
        ("127.0.0.1", 8011),
        ("127.0.0.1", 9989),
    ]
    assert (settings.www.url, settings.packages.url) == ("http://127.0.0.1:8010/", "http://127.0.0.1:8011/")


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ("http://m:8010", "http://m:8010/"),
        ("http://m:8010//", "http://m:8010/"),
        ("https://m/a//b", "https://m/a/b/"),
        ("http://[::1]:8010///packages//", "http://[::1]:8010/packages/"),
    ],
)
def test_a_url_has_single_slashes_however_it_is_written(tmp_path: Path, written: str, read_as: str) -> None:
    """A slash too many or too few in the address of a server changes nothing."""
    text = (
        f"www: {{url: '{written}'}}\npackages: {{url: '{written}', worker_url: '{written}'}}\n"
        f"workers: {{local: {{mirrors: {{debian: '{written}'}}}}}}\n"
    )
    settings = read(tmp_path, LEAST + text)
    urls = {settings.www.url, settings.packages.url, settings.packages.internal_url}
    assert {*urls, settings.workers.local.mirrors["debian"]} == {read_as}


@pytest.mark.parametrize("url", ["http://", "http:///", "m:8010", "ftp://m/", "http://m/?q", "http://m/a b/"])
def test_what_is_no_url_of_a_server_is_refused(tmp_path: Path, url: str) -> None:
    """An address without a scheme or a host, or with a query, has its sentence."""
    sentence = f"www.url: must be a URL like http://HOST:PORT/, or one with a path (it is {url!r})"
    assert problems(tmp_path, f"{LEAST}www: {{url: '{url}'}}\n") == [sentence]


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    """Whoever has ten mistakes in a file is told ten, each with its key and its sentence, in one message."""
    text = """\
git:
  allowed: [https://github.com]
  timout: 5
targets: [ceph-deb-jamy-*]
titel: x
title: Nineteen characters
www: {port: 70000, url: '127.0.0.1:8010'}
packages: []
workers: {attempts: 0, local: {isolation: chroot, count: many, mirrors: {fedora: 'http://x/'}}}
build: {hours: -1}
users: {alice: secret, 'a b': '0000000000000000000000000000000000000000000000000000000000000000'}
contributors_trusted: perhaps
"""
    assert sorted(problems(tmp_path, text)) == sorted([
        "git.allowed: allowed git URL 'https://github.com' must end with / (it is ['https://github.com'])",
        "git.timout: unknown key",
        "targets: 'ceph-deb-jamy-*' matches no target; the matrix: python -m model.targets (it is ['ceph-deb-jamy-*'])",
        "titel: unknown key",
        "title: string should have at most 18 characters (it is 'Nineteen characters')",
        "www.port: input should be less than or equal to 65535 (it is 70000)",
        "www.url: must be a URL like http://HOST:PORT/, or one with a path (it is '127.0.0.1:8010')",
        "packages: must be a mapping of keys to values",
        "workers.attempts: input should be greater than or equal to 1 (it is 0)",
        "workers.local.isolation: input should be 'auto', 'namespaces' or 'none' (it is 'chroot')",
        "workers.local.count: input should be a valid integer, unable to parse string as an integer (it is 'many')",
        "workers.local.mirrors.fedora.[key]: string should match pattern '^(debian|ubuntu)$' (it is 'fedora')",
        "build.hours: input should be greater than 0 (it is -1)",
        "users.alice: string should match pattern '^[0-9a-f]{64}$' (it is 'secret')",
        "users.a b.[key]: string should match pattern '^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$' (it is 'a b')",
        "contributors_trusted: input should be a valid boolean, unable to interpret input (it is 'perhaps')",
    ])  # fmt: skip


def test_all_contradictions_are_told_at_once(tmp_path: Path) -> None:
    """Keys that are right by themselves and wrong together are told together as well."""
    text = LEAST + "www: {port: 9989}\npackages: {staging: packages/staging}\n"
    text += "projects: {ceph: {git_url: https://gitlab.com/ceph/ceph.git, canonical_url: https://x/y}}\n"
    assert problems(tmp_path, text) == [
        "projects.ceph.git_url: git_url 'https://gitlab.com/ceph/ceph.git' is not below an allowed URL: https://github.com/",
        "packages.staging: must lie beside packages.directory, not inside it",
        "www.port, packages.port, workers.port: [9989, 8011, 9989] must differ",
    ]


@pytest.mark.parametrize(
    ("local", "problem"),
    [
        (
            "limits: {memory: 8}",
            "workers.local.limits: only the engine crun enforces limits; set workers.local.engine: crun, or remove them",
        ),
        (
            "engine: script, limits: {}",
            "workers.local.limits: only the engine crun enforces limits; set workers.local.engine: crun, or remove them",
        ),
        (
            "reach: []",
            "workers.local.reach: only the engine crun enforces it; set workers.local.engine: crun, or remove it",
        ),
        (
            "engine: crun, reach: [mirror.example.org, '*.debian.org']",
            "workers.local.reach.1: must be HOST or HOST:PORT, such as mirror.example.org or 192.0.2.7:9418 (it is '*.debian.org')",
        ),
        (
            "engine: crun, isolation: none",
            "workers.local.engine: crun isolates builds, and workers.local.isolation is none",
        ),
        (
            "engine: crun, limits: {memory: .inf}",
            "workers.local.limits.memory: input should be less than or equal to 100000 (it is inf)",
        ),
    ],
)
def test_no_limit_stands_in_the_file_without_being_enforced(tmp_path: Path, local: str, problem: str) -> None:
    """Settings of one engine are refused with the other."""
    assert problems(tmp_path, LEAST + f"workers: {{local: {{{local}}}}}\n") == [problem]


def test_limits_that_this_machine_cannot_enforce_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each missing part of crun, and else each limit without a cgroup, is a sentence with its key."""
    text = LEAST + "workers: {local: {engine: crun, limits: {memory: 8}}}\n"
    monkeypatch.setattr("workers.local_settings.crun_problems", lambda: ["it needs root", "another"])
    assert problems(tmp_path, text) == [
        "workers.local.engine: crun cannot be used: it needs root",
        "workers.local.engine: crun cannot be used: another",
    ]
    monkeypatch.setattr("workers.local_settings.crun_problems", list)
    monkeypatch.setattr(
        "workers.local_settings.not_enforceable", lambda limits: ["memory"] if limits.memory else []
    )
    assert problems(tmp_path, text) == [
        "workers.local.limits.memory: this machine has no writable cgroup that enforces it; set it to 0 for no limit"
    ]
    read(tmp_path, text.replace("memory: 8", "memory: 0"))
    monkeypatch.setattr("workers.local_settings.no_disks", lambda: "there is none")
    assert problems(tmp_path, text.replace("memory: 8", "memory: 0, disk: 9")) == [
        "workers.local.limits.disk: there is none; set it to 0 for no limit"
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="crun needs root")
def test_crun_has_limits_unless_told_otherwise(tmp_path: Path) -> None:
    """The builds together leave an eighth of the memory to the master; the other engine has no limits."""
    text = LEAST + "workers: {local: {engine: crun, count: 4}}\n"
    limits = read(tmp_path, text).workers.local.limits_in_force
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0.85 < 4 * limits.memory / machine < 0.9
    assert (limits.processes, limits.processors) == (8192, 0)
    assert read(tmp_path, LEAST).workers.local.limits_in_force == Limits()


@pytest.mark.parametrize("section", ["www", "packages", "workers"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "packages.example.org", ""])
def test_other_addresses_need_trusted_contributors(tmp_path: Path, section: str, host: str) -> None:
    """As builds run on this machine, no door opens beyond loopback unless the operator says that all are trusted."""
    text = LEAST + f"{section}: {{host: '{host}'}}\n"
    assert problems(tmp_path, text) == [
        (
            f"{section}.host: {host!r} is not loopback: the `local` provider builds on this very machine;"
            " set contributors_trusted: true only if you trust everyone who may ask for a build"
        )
    ]
    assert read(tmp_path, text + "contributors_trusted: true\n").contributors_trusted


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_loopback_is_loopback(tmp_path: Path, host: str) -> None:
    """Every spelling of loopback is one."""
    assert read(tmp_path, LEAST + f"www: {{host: '{host}'}}\n").www.host == host


@pytest.mark.parametrize(
    "packages",
    ["staging: packages", "staging: .", "directory: staging/tree", "{directory: /srv/a, staging: /srv/a/b}", "staging: packages/../packages", "staging: ./packages/x"],
)  # fmt: skip
def test_staging_is_never_served(tmp_path: Path, packages: str) -> None:
    """Neither of the tree and staging may hold the other, however the two are spelled."""
    section = packages if packages.startswith("{") else f"{{{packages}}}"
    assert problems(tmp_path, LEAST + f"packages: {section}\n") == [
        "packages.staging: must lie beside packages.directory, not inside it"
    ]


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    """Without a settings file the sentence says where it should be, and what to copy there."""
    path = tmp_path / "settings.yaml"
    with pytest.raises(SettingsError) as caught:
        Settings.from_file(path)
    assert str(caught.value) == f"{path} is missing: copy settings.example.yaml there and edit it"


@pytest.mark.parametrize("content", [b"git: [", b"\xff", b"a: !!python/object/apply:os.system [id]"])
def test_what_is_no_yaml_cannot_be_read(tmp_path: Path, content: bytes) -> None:
    """A file that is not plain YAML is refused with its name, and nothing in it is run."""
    path = tmp_path / "settings.yaml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=f"^{re.escape(str(path))} cannot be read: "):
        Settings.from_file(path)
    with pytest.raises(SettingsError, match="cannot be read: "):
        Settings.from_file(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "hello", "7"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    """An empty file, or one that is no mapping, is refused in words."""
    assert problems(tmp_path, text) == ["the file: must be a mapping of keys to values"]


def test_nothing_can_be_changed_afterwards(tmp_path: Path) -> None:
    """Settings are frozen: what was checked is what is in force."""
    settings = read(tmp_path, LEAST)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.www.port = 1  # type: ignore[misc]


def test_the_environment_names_another_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """BUILDPACKAGES_SETTINGS wins over the file beside master.cfg."""
    monkeypatch.delenv("BUILDPACKAGES_SETTINGS", raising=False)
    assert default_path() == ROOT / "settings.yaml"
    monkeypatch.setenv("BUILDPACKAGES_SETTINGS", "/somewhere/else.yaml")
    assert default_path() == Path("/somewhere/else.yaml")


def test_the_command_prints_what_is_in_force(tmp_path: Path) -> None:
    """`python -m master.settings` prints all settings, defaults included, as a file that reads as the same; a wrong one ends with 1."""
    path = tmp_path / "settings.yaml"
    path.write_text(LEAST)
    command = [sys.executable, "-m", "master.settings", str(path)]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    again = tmp_path / "again.yaml"
    again.write_text(printed)
    assert Settings.from_file(again) == Settings.from_file(path)
    path.write_text("git: 7")
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (finished.returncode, finished.stdout) == (1, "")
    assert finished.stderr == f"{path}:\n  git: must be a mapping of keys to values\n  targets: is missing\n"


@pytest.mark.parametrize(
    ("url", "said", "trusted"),
    [
        ("http://127.0.0.1:8011/", None, True),
        ("http://localhost:8011/", None, True),
        ("http://[::1]:8011/", None, True),
        ("https://packages.example.org/", None, True),
        ("http://packages.example.org/", None, False),
        ("http://192.0.2.7:8011/", None, False),
        ("http://packages.example.org/", True, True),
        ("https://packages.example.org/", False, False),
    ],
)
def test_d13_apt_trusts_only_what_nobody_can_change(url: str, said: bool | None, trusted: bool) -> None:
    """Unless the settings say it, apt is told not to check signatures with https and on loopback only."""
    assert Packages(url=url, apt_trusted=said).trusts_unsigned is trusted

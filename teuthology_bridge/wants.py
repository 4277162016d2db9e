"""What packages a job wants, read from its configuration as teuthology's install task reads it; pure.

What is looked at, and how it is merged, is install's doing, its oddities included: only then does
"already published?" ask for what install will ask for. tests/contract/job_wants.yaml holds it.

Some that surprise:
- A task `install` without any reference takes branch `main`, whatever the job's own `sha1` says.
  The `sha1` of `overrides.install.<project>` is what teuthology-suite sets.
- In a task `install` the overrides win. In `install.upgrade` theirs count only where the role has none.
- `path` makes the flavor `local`, and install looks for packages of that flavor: so they are wanted.
- `overrides.install.repos` makes install leave our packages alone, but not on deb, and not in upgrades.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from typing import Any

from teuthology_bridge.errors import WrongJob

Path = tuple[Any, ...]
"""Keys and indexes from the job's configuration down to something in it."""

INSTALL, UPGRADE, OVERRIDES = "install", "install.upgrade", "overrides"
REFERENCES = ("tag", "branch", "sha1")
"""In the order in which install looks for them."""

_MAIN = ("branch", "main")
_READ = (*REFERENCES, "flavor", "path", "valgrind", "coverage", "rhbuild")
_DEB = ("ubuntu", "debian")
_SHA1 = re.compile(r"[0-9a-f]{40}\Z")


@dataclass(frozen=True)
class Want:
    """Packages of one commit for one kind of machine, and who wants them."""

    project: str
    os_type: str
    os_version: str
    arch: str
    flavor: str
    kind: str
    """One of REFERENCES: what the value is."""
    value: str
    where: tuple[Path, ...] = field(default=(), compare=False)
    """The tasks, or the roles of an upgrade, that ask for it."""
    assumed: str = field(default="", compare=False)
    """What the job does not say and teuthology fills in: for whoever wonders about the answer."""

    @property
    def sha1(self) -> str:
        """The commit, where the job names one; else empty."""
        return self.value if self.kind == "sha1" else ""

    @property
    def ref(self) -> str:
        """The branch or the tag, where the job names one; else empty."""
        return "" if self.kind == "sha1" else self.value

    def __str__(self) -> str:
        """Say it in one line, with the places."""
        places = ", ".join(spell(path) for path in self.where)
        return (
            f"{self.project} {self.kind} {self.value} for {self.os_type} {self.os_version}"
            f" {self.arch}, flavor {self.flavor} ({places})"
        )


@dataclass(frozen=True)
class _Place:
    """One task `install`, or one role of an `install.upgrade`."""

    path: Path
    upgrade: bool
    project: str
    flavor: str
    kind: str
    value: str


def wants(
    config: Mapping[str, Any], *, os_type: str | None, os_version: str | None, defaults: Mapping[str, str]
) -> list[Want]:
    """Give what the job wants, each once, in the order of its places; WrongJob says what can't be read.

    os_type and os_version are those of teuthology's command line, which win over the job's; defaults
    are teuthology's versions of distributions for jobs that name none.
    """
    assumed = []
    distro = os_type or config.get("os_type")
    if not distro:
        distro = "ubuntu"
        assumed.append("os_type is not set: teuthology's default is ubuntu")
    distro = str(distro)
    version = os_version or config.get("os_version")
    if not version:
        version = defaults.get(distro)
        if not version:
            known = ", ".join(sorted(defaults))
            raise WrongJob(f"teuthology has no default os_version for os_type {distro!r}, only for {known}")
        assumed.append(f"os_version is not set: teuthology's default for {distro} is {version}")
    found: dict[Want, list[Path]] = {}
    for place in _places(config, distro):
        want = Want(
            project=place.project,
            os_type=distro,
            os_version=str(version),
            arch=str(config.get("arch") or "x86_64"),
            flavor=place.flavor,
            kind=place.kind,
            value=place.value,
        )
        found.setdefault(want, []).append(place.path)
    told = "; ".join(assumed)
    return [replace(want, where=tuple(paths), assumed=told) for want, paths in found.items()]


def pin(config: MutableMapping[str, Any], want: Want, sha1: str) -> None:
    """Have every place of the want install this very commit, and all others what they would have.

    It may be called for the wants of one job in any order. Each task and role is given its
    reference itself, as the overrides' could not differ from one to the other; and the overrides
    keep one only where no task is led astray by it, as a sha1 there wins over the task's own.
    """
    places = [place for place in _places(config, want.os_type) if place.project == want.project]
    meant = []
    for place in places:
        reference = ("sha1", sha1) if place.path in want.where else (place.kind, place.value)
        parent: Any = config
        for key in place.path[:-1]:
            parent = parent[key]
        # A new mapping, not the old one changed: with YAML's aliases that may stand elsewhere as well.
        parent[place.path[-1]] = _with(parent[place.path[-1]] or {}, reference)
        if not place.upgrade:
            meant.append(reference)
    overrides = _overrides(config, want.project)
    held = next(((kind, str(overrides[kind])) for kind in REFERENCES if overrides.get(kind)), None)
    if held is None:
        return
    if held == (want.kind, want.value):
        held = ("sha1", sha1)
    harmless = all(_chosen({kind: value, held[0]: held[1]}) == (kind, value) for kind, value in meant)
    config[OVERRIDES][INSTALL][want.project] = _with(overrides, held if harmless else None)


def spell(path: Path) -> str:
    """Give a path as somebody reads it beside the YAML: `tasks[3]: install.upgrade: mon.a`."""
    words: list[str] = []
    for key in path:
        if isinstance(key, int) and words:
            words[-1] += f"[{key}]"
        else:
            words.append(str(key))
    return ": ".join(words)


def _places(config: Mapping[str, Any], os_type: str) -> Iterator[_Place]:
    """Give each place that will ask for packages."""
    installs = _mapping(_mapping(config.get(OVERRIDES), (OVERRIDES,)).get(INSTALL), (OVERRIDES, INSTALL))
    from_elsewhere = bool(installs.get("repos")) and os_type.lower() not in _DEB
    for path, task in _tasks(config, ()):
        project = str(task.get("project", "ceph"))
        if path[-1] == UPGRADE:
            yield from _of_upgrade(config, path, task, project)
            continue
        merged = _merge(task, _overrides(config, project), path)
        if not from_elsewhere and not merged.get("rhbuild"):
            yield _place(path, project, merged, _flavor(merged), upgrade=False)


def _tasks(node: object, path: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Give every task of ours wherever it stands: suites put them into sections of any name."""
    if isinstance(node, list):
        for index, leaf in enumerate(node):
            yield from _tasks(leaf, (*path, index))
    elif isinstance(node, Mapping):
        for key, value in node.items():
            if key in (INSTALL, UPGRADE) and (value is None or isinstance(value, Mapping)):
                yield (*path, key), value or {}
            elif key != OVERRIDES:
                yield from _tasks(value, (*path, key))


def _of_upgrade(
    config: Mapping[str, Any], path: Path, task: Mapping[str, Any], project: str
) -> Iterator[_Place]:
    for role in ["all"] if "all" in task else _roles(config, task):
        here = (*path, role)
        node = _mapping(task[role], here)
        overrides = _overrides(config, project)
        # That a key is there decides, not what it holds.
        if any(kind in node for kind in REFERENCES):
            overrides = _with(overrides, None)
        merged = _merge(node, overrides, here)
        yield _place(here, project, merged, merged.get("flavor", "default"), upgrade=True)


def _roles(config: Mapping[str, Any], task: Mapping[str, Any]) -> list[str]:
    """Give the keys of an upgrade that are roles; of those on one machine, the first, as teuthology does."""
    machines = [roles for roles in config.get("roles") or [] if isinstance(roles, list)]
    first: dict[int, str] = {}
    for key in task:
        machine = next((index for index, roles in enumerate(machines) if key in roles), None)
        if machine is not None:
            first.setdefault(machine, key)
    return list(first.values())


def _place(path: Path, project: str, merged: Mapping[str, Any], flavor: object, *, upgrade: bool) -> _Place:
    kind, value = _chosen(merged)
    text = _text(value, kind, path)
    if kind == "sha1":
        text = text.lower()
        if not _SHA1.match(text):
            why = (
                "is not the 40 hexadecimal digits of a commit"
                if isinstance(value, str)
                else "is what YAML reads as a number, and digits are lost: put the sha1 into quotes"
            )
            raise WrongJob(f"sha1 {text} of {spell(path)}, or of {OVERRIDES}: install: {project}, {why}")
    return _Place(path, upgrade, project, _text(flavor, "flavor", path), kind, text)


def _chosen(merged: Mapping[str, Any]) -> tuple[str, Any]:
    """Give the reference that install takes, by name and value."""
    return next(((kind, merged[kind]) for kind in REFERENCES if merged.get(kind)), _MAIN)


def _flavor(merged: Mapping[str, Any]) -> object:
    """Give a task's flavor; upgrades know of no other than the one that is named."""
    if merged.get("path"):
        return "local"
    if merged.get("valgrind"):
        return "notcmalloc"
    return "gcov" if merged.get("coverage") else merged.get("flavor", "default")


def _overrides(config: Mapping[str, Any], project: str) -> Mapping[str, Any]:
    node: object = config
    path: Path = ()
    for key in (OVERRIDES, INSTALL, project):
        path = (*path, key)
        node = _mapping(_mapping(node, path).get(key), path)
    return _mapping(node, path)


def _merge(task: Mapping[str, Any], overrides: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Give what the task comes to, of what matters here."""
    merged = {key: task[key] for key in _READ if key in task}
    for key in _READ:
        if key in overrides:
            merged[key] = _deep(merged.get(key), overrides[key], (*path, key))
    return merged


def _deep(mine: Any, other: Any, path: Path) -> Any:
    """Give what teuthology's deep_merge gives, and change nothing."""
    if other is None:
        return mine
    if isinstance(mine, list | Mapping) and type(mine) is not type(other):
        raise WrongJob(f"{spell(path)} is {mine!r}, and {other!r} of the overrides can't be merged into it")
    if isinstance(mine, list):
        return [*mine, *other]
    if isinstance(mine, Mapping):
        return {**mine, **{key: _deep(mine.get(key), value, (*path, key)) for key, value in other.items()}}
    return other


def _with(node: Mapping[str, Any], reference: tuple[str, str] | None) -> dict[str, Any]:
    """Give a node with this reference and no other."""
    rest = {key: value for key, value in node.items() if key not in REFERENCES}
    return rest if reference is None else {**rest, reference[0]: reference[1]}


def _mapping(node: object, path: Path) -> Mapping[str, Any]:
    if node is None:
        return {}
    if not isinstance(node, Mapping):
        raise WrongJob(f"{spell(path)} must be a mapping, not {node!r}")
    return node


def _text(value: object, what: str, path: Path) -> str:
    if isinstance(value, list | Mapping):
        raise WrongJob(f"{what} of {spell(path)} must be a text, not {value!r}")
    return str(value)

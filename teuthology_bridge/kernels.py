"""Which kernels a job's task `kernel` looks for where packages are, read from its configuration as that task reads it; pure.

After our task the whole process looks on our server, which has no kernels. Whether the task then fails is not
for us to say: it leaves containers alone, and machines that run the very kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_TASK = "kernel"
_VERSIONS = ("branch", "tag", "sha1", "deb", "rpm", "koji", "koji_task")
_OF_ALL = (*_VERSIONS, "kdb", "flavor", "hwe")
"""A configuration of nothing else is that of all roles."""


def looked_for(config: Mapping[str, Any]) -> list[str]:
    """Give the roles whose kernel is neither the distribution's, nor a file, nor koji's, of all such tasks after ours."""
    tasks = config.get("tasks") or []
    ours = next((at for at, task in enumerate(tasks) if "buildpackages" in _mapping(task)), -1)
    machines = [roles for roles in config.get("roles") or [] if isinstance(roles, list)]
    roles = [role for roles in machines for role in roles if isinstance(role, str)]
    overrides = _untimed(_mapping(config.get("overrides")).get(_TASK))
    found: dict[str, None] = {}
    for told in _tasks(tasks[ours + 1 :]):
        over = _of_roles(overrides, roles) if overrides else {}
        below = _of_roles(told, roles)
        for role in [*below, *over]:
            its, above = below.get(role, {}), over.get(role, {})
            # A version takes the place of one of another kind.
            gone = _VERSIONS if any(key in above for key in _VERSIONS) else ()
            if _is_looked_for({key: value for key, value in its.items() if key not in gone} | dict(above)):
                found[role] = None
    return list(found)


def _tasks(node: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == _TASK:
                yield _untimed(value)
            else:
                yield from _tasks(value)
    elif isinstance(node, list):
        for one in node:
            yield from _tasks(one)


def _of_roles(told: Mapping[str, Any], roles: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Give what is told of each role: of all, of all of a type, or of one."""
    distro = {"branch": "distro", "sha1": "distro"}
    if all(key in _OF_ALL for key in told):
        return dict.fromkeys(roles, told or distro)
    found: dict[str, Mapping[str, Any]] = {}
    for key, value in told.items():
        its = distro if value is None else _mapping(value)
        if "." in key:
            found[key] = its
            continue
        for role in roles:
            if role.startswith(f"{key}.") and role not in told:
                found[role] = its
    return found


def _is_looked_for(its: Mapping[str, Any]) -> bool:
    elsewhere = any(its.get(key) for key in ("rpm", "deb", "koji", "koji_task"))
    return not elsewhere and its.get("sha1") != "distro"


def _untimed(node: object) -> Mapping[str, Any]:
    """Give a configuration without what is of no role."""
    return {str(key): value for key, value in _mapping(node).items() if key != "timeout"}


def _mapping(node: object) -> Mapping[str, Any]:
    return node if isinstance(node, Mapping) else {}

"""teuthology's own configuration of a site, read without teuthology: for the command, which must not need it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from teuthology_bridge.errors import WrongSettings, one_line
from teuthology_bridge.settings import Settings


def site(environment: Mapping[str, str]) -> Mapping[str, Any]:
    """Give what the file holds that teuthology would read; it may hold nothing, or not be there."""
    named = environment.get("TEUTHOLOGY_CONFIG")
    candidates = [*([named] if named is not None else []), "~/.teuthology.yaml", "/etc/teuthology.yaml"]
    for candidate in candidates:
        path = Path(candidate).expanduser()
        if path.exists():
            return _read(path)
    return {}


def load(environment: Mapping[str, str], *, job: str = "") -> Settings:
    """Give the settings of a command, which has no job's configuration; job is what the master calls it."""
    settings = Settings.load(environment, site(environment).get("buildpackages"))
    return Settings(**{**vars(settings), "job": job})


def git_url(environment: Mapping[str, str]) -> str:
    """Give the repository that the site's jobs install from, empty where the site leaves it to the master."""
    told = site(environment)
    if told.get("ceph_git_url"):
        return str(told["ceph_git_url"])
    base = told.get("ceph_git_base_url")
    return f"{base}ceph-ci.git" if base else ""


def _read(path: Path) -> Mapping[str, Any]:
    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise WrongSettings(
            f"{path}, teuthology's configuration, can't be read: {one_line(str(error))}"
        ) from None
    if told is None:
        return {}
    if not isinstance(told, Mapping):
        raise WrongSettings(
            f"{path}, teuthology's configuration, must hold a mapping, not {type(told).__name__}"
        )
    return told

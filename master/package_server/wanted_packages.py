"""Lines with which a test node takes only a project's own packages from here: a pin for apt, `includepkgs` for dnf.

docs/operating.md has them for Ceph. The page of each published directory has them for its own project.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from master.publishing.package_names import PackageNames
from master.publishing.repository_metadata import LABEL
from model.targets import Target

if TYPE_CHECKING:
    from collections.abc import Mapping


def apt_preferences(names: PackageNames) -> str:
    """Return the text of a file below /etc/apt/preferences.d."""
    release = f"Pin: release l={LABEL}\n"
    return (
        f"Package: *\n{release}Pin-Priority: -1\n\n"
        f"Package: {' '.join(names.patterns)}\n{release}Pin-Priority: 500\n"
    )


def dnf_command(names: PackageNames) -> str:
    """Return the command that adds the names to the `.repo` file, once `<project>-release` is installed."""
    wanted = f"/^gpgcheck=/a includepkgs={','.join(names.patterns)}"
    return f"sed -i '{wanted}' /etc/yum.repos.d/{names.project}.repo\n"


def section(target_name: str, patterns: Mapping[str, tuple[str, ...]]) -> str:
    """Return the part of a published directory's page; empty for the directory of a target that cannot be built any more.

    `patterns` are those of each project's setting.
    """
    try:
        target = Target.from_name(target_name)
    except ValueError:
        return ""
    names = PackageNames.of(target.project, patterns.get(target.project, ()))
    if target.pkg_type == "deb":
        todo = f"Put this into <code>/etc/apt/preferences.d/{escape(target.project)}-on-demand</code>:"
        text = apt_preferences(names)
    else:
        todo = f"Install <code>{escape(target.project)}-release</code> from <code>noarch/</code>, then run:"
        text = dnf_command(names)
    return (
        f"<h2>Take only the packages of {escape(target.project)}</h2>\n<p>With these lines, a test node takes no package of"
        f" another name from this server. {todo}</p>\n<pre>{escape(text)}</pre>\n"
    )

"""Prepared roots: what they are made of."""

from __future__ import annotations

import pytest

from workers.roots import Root, macros


@pytest.mark.parametrize(
    ("version", "hook"),
    [
        ("RPM version 4.17.0\n", True),
        ("RPM version 4.18.0\n", True),
        ("RPM version 4.20.1\n", False),
        ("RPM version 6.0.0\n", False),
    ],
)
def test_debug_packages_are_defined_once(version: str, hook: bool) -> None:
    """Before 4.20 rpm needs a hook to define the debug packages; from then on it defines them itself, and fails with the hook."""
    text = macros("centos9", version)
    assert text.startswith("%dist .el9\n%rhel 9\n%el9 1\n")
    assert "\n%_enable_debug_packages 1\n" in text
    assert ("%{?_enable_debug_packages:%{?buildsubdir:%{debug_package}}}" in text) == hook


def test_a_stand_in_has_what_debs_need_as_well() -> None:
    """Ceph's install-deps.sh takes a stand-in for the Debian that it is, and so calls mk-build-deps there."""
    own, stand_in = Root("bookworm", "debian"), Root("bookworm", "debian", "centos9")
    assert {"wget", "python3-venv", "devscripts", "equivs"} <= set(own.packages)
    assert set(own.packages) < set(stand_in.packages)
    assert {"rpm", "dnf", "cpio", "elfutils"} <= set(stand_in.packages)
    assert own.name.startswith("bookworm-")
    assert stand_in.name.startswith("bookworm-for-centos9-")

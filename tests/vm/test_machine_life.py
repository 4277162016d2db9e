"""The log of a virtual machine's life is read from its console right."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from lab import hypervisor
from tests.vm.__main__ import Virtual
from tests.vm.machine_life import Event, console_events, step_events, table

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

CONSOLE = """\
[    0.000000] Linux version 6.1.0-56-cloud-amd64 (debian-kernel@lists.debian.org)\r
[    5.250000] Run /init as init process\r
Loading, please wait...\r
[   14.600113] systemd[1]: systemd 252.39-1~deb12u1 running in system mode (+PAM)\r
[   31.2] cloud-init[214]: Cloud-init v. 22.4.2 running 'init-local' at Tue, 24 Nov 2026 13:29:40 +0000. Up 31.06 seconds.\r
[   74.604879] cloud-init[392]: Cloud-init v. 22.4.2 running 'modules:final' at Tue, 24 Nov 2026 13:30:20 +0000. Up 74.15 seconds.\r
[   75.9] cloud-init[392]: buildpackages: 3 s: what builds need is there\r
[   82.219931] cloud-init[392]: Cloud-init v. 22.4.2 finished at Tue, 24 Nov 2026 13:30:28 +0000. Datasource DataSourceConfigDrive.  Up 82.15 seconds\r
"""


def test_console_tells_the_events_of_a_boot() -> None:
    """Kernel, initial RAM disk, cloud-init's stages and user data's own lines are found, all in the guest's seconds."""
    assert console_events(CONSOLE) == [
        Event("kernel up", 5.25),
        Event("root disk mounted, systemd begins", 14.600113),
        Event("cloud-init begins `init-local`", 31.06),
        Event("cloud-init begins `modules:final`", 74.15),
        Event("user data: what builds need is there", 77.15),
        Event("cloud-init finished", 82.15),
    ]


def test_a_console_without_a_boot_tells_nothing() -> None:
    """No event is made up."""
    assert console_events("[    0.000000] Linux version 6.1\r\nKernel panic - not syncing: VFS\r\n") == []


def test_steps_are_told_in_their_order() -> None:
    """Steps that are hidden are left out."""
    steps = {
        "packages": {"number": 3, "name": "packages", "state_string": "4 packages built", "complete_at": 51, "hidden": False},
        "look": {"number": 1, "name": "look", "state_string": "not yet", "complete_at": 2, "hidden": True},
        "checkout": {"number": 2, "name": "checkout", "state_string": "checked out", "complete_at": 7, "hidden": False},
    }  # fmt: skip
    assert step_events(steps) == [
        Event("step `checkout`: checked out", 7),
        Event("step `packages`: 4 packages built", 51),
    ]


def test_table_tells_when_and_how_long() -> None:
    """Rows are in the order of time; each says the seconds since the beginning, and since the row before."""
    assert table([Event("gone", 130.0), Event("a|b", 102.5)], 100.0) == [
        "| at, s | took, s | |",
        "|---:|---:|---|",
        "| 2.5 | 2.5 | a/b |",
        "| 30.0 | 27.5 | gone |",
    ]


def test_the_settings_of_its_master_are_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of the virtual machine runs seldom, so its settings are held against the product here."""
    monkeypatch.setattr(hypervisor, "ADDRESS", "127.0.0.1")
    lab: Any = SimpleNamespace(clouds_yaml=tmp_path / "clouds.yaml")
    here = Virtual(tmp_path, lab)
    openstack = here.settings.workers.openstack
    assert openstack is not None
    [cloud] = openstack.clouds
    assert cloud.environment == {"BUILDPACKAGES_DEMO_DOWNLOADS": f"http://127.0.0.1:{here.downloads_port}"}
    assert openstack.contradictions(here.settings.selected_targets) == []

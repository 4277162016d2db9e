"""The log of a virtual machine's life is read from its console right."""

from __future__ import annotations

from tests.vm.machine_life import Phase, console_phases, step_phases

CONSOLE = """\
[    0.000000] Linux version 6.1.0-56-cloud-amd64 (debian-kernel@lists.debian.org)\r
[    5.250000] Run /init as init process\r
Loading, please wait...\r
[   14.600113] systemd[1]: systemd 252.39-1~deb12u1 running in system mode (+PAM)\r
[   31.2] cloud-init[214]: Cloud-init v. 22.4.2 running 'init-local' at Tue, 24 Nov 2026 13:29:40 +0000. Up 31.06 seconds.\r
[   74.604879] cloud-init[392]: Cloud-init v. 22.4.2 running 'modules:final' at Tue, 24 Nov 2026 13:30:20 +0000. Up 74.15 seconds.\r
[   75.9] cloud-init[392]: buildpackages: 0 s: this machine is for ceph-deb-bookworm-x86_64-default\r
[   82.219931] cloud-init[392]: Cloud-init v. 22.4.2 finished at Tue, 24 Nov 2026 13:30:28 +0000. Datasource DataSourceConfigDrive.  Up 82.15 seconds\r
"""


def test_console_tells_the_phases_of_a_boot() -> None:
    """Kernel, initial RAM disk, cloud-init's stages and user data's own lines are found, with their seconds."""
    assert console_phases(CONSOLE) == [
        Phase("kernel done", 5.25),
        Phase("initial RAM disk done", 14.600113),
        Phase("cloud-init running 'init-local'", 31.06),
        Phase("cloud-init running 'modules:final'", 74.15),
        Phase("cloud-init finished", 82.15),
        Phase("user data: this machine is for ceph-deb-bookworm-x86_64-default", 0),
    ]


def test_a_console_without_a_boot_tells_nothing() -> None:
    """No phase is made up."""
    assert console_phases("[    0.000000] Linux version 6.1\r\nKernel panic - not syncing: VFS\r\n") == []


def test_steps_are_told_in_their_order_with_what_they_took() -> None:
    """Steps that are hidden are left out."""
    steps = {
        "packages": {"number": 3, "name": "packages", "state_string": "4 packages built", "started_at": 20, "complete_at": 51.5, "hidden": False},
        "look": {"number": 1, "name": "look", "state_string": "not yet", "started_at": 1, "complete_at": 2, "hidden": True},
        "checkout": {"number": 2, "name": "checkout", "state_string": "checked out", "started_at": 2, "complete_at": 7, "hidden": False},
    }  # fmt: skip
    assert step_phases(steps) == [
        Phase("step checkout: checked out", 5),
        Phase("step packages: 4 packages built", 31.5),
    ]

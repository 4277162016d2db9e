"""A server of the lab: real nova above, a process that runs its user data below."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import openstack.exceptions
import pytest

from tests.cloud import Tenant, prepared_roots, remains, until

if TYPE_CHECKING:
    from lab.cloud import Lab

FOREVER = "#!/bin/sh\necho started\nexec sleep 1000\n"


def test_user_data_runs_as_root_in_an_overlay_of_the_images_root(tenant: Tenant) -> None:
    """User data runs unmodified, as root, in a throw-away overlay: it sees the image's files and changes nothing of them."""
    server = tenant.boot(
        '#!/bin/bash\necho "I am $(id -u) in $PWD, $(cat /marker 2>&1)"\ncat /etc/os-release\necho x >/marker\nls /work\necho END\n'
    )
    assert server.status == "ACTIVE"
    printed = tenant.prints(server, "END")
    assert "I am 0 in /, cat: /marker: No such file or directory" in printed
    assert "VERSION_CODENAME=bookworm" in printed
    assert "ls: cannot access '/work'" in printed
    root = prepared_roots()["bookworm"]
    assert not (root / "marker").exists()
    assert (tenant.lab.directory / "servers" / server.id / "upper/marker").exists()


def test_a_deleted_server_leaves_nothing_on_the_machine(tenant: Tenant) -> None:
    """Deleting a server ends all that it runs, in the background as well, and removes its mounts and its directory."""
    server = tenant.boot(
        "#!/bin/sh\nsetsid sh -c 'exec env -i sleep 1001' &\nsetsid sleep 1002 &\necho started\nexec sleep 1003\n"
    )
    tenant.prints(server, "started")
    directory = tenant.lab.directory / "servers" / server.id
    assert len(remains(directory)) > 4
    tenant.delete(server)
    assert until(lambda: remains(directory) == [], lambda: f"gone: {remains(directory)}", 2)


def test_a_server_that_powers_off_is_shut_off(tenant: Tenant) -> None:
    """A server that ends itself is SHUTOFF within seconds, its console is kept, and it can still be deleted."""
    server = tenant.boot("#!/bin/sh\necho bye\nsleep 0.5\npoweroff\nsleep 1000\n")
    until(lambda: tenant.get(server).status == "SHUTOFF", "it is shut off", 10)
    assert "bye" in tenant.console(server)
    tenant.delete(server)
    assert not (tenant.lab.directory / "servers" / server.id).exists()


def test_a_server_goes_on_when_its_user_data_ends(tenant: Tenant) -> None:
    """The end of the user data is not the end of the server; the console tells its status."""
    server = tenant.boot("#!/bin/sh\nexit 3\n")
    tenant.prints(server, "the user data ended with status 3")
    assert tenant.get(server).status == "ACTIVE"
    assert tenant.lab.knobs.get("never_attach") == 0


def test_user_data_does_not_run_twice(tenant: Tenant) -> None:
    """Stopped and started, a server has its files, and its user data does not run again: so cloud-init does it."""
    server = tenant.boot("#!/bin/sh\necho once >>/count\necho started\n")
    tenant.prints(server, "started")
    tenant.connection.compute.stop_server(server.id)
    until(lambda: tenant.get(server).status == "SHUTOFF", "it is stopped")
    tenant.connection.compute.start_server(server.id)
    until(lambda: tenant.get(server).status == "ACTIVE", "it is started")
    tenant.prints(server, "the user data has run already")
    assert (tenant.lab.directory / "servers" / server.id / "upper/count").read_text() == "once\n"


def test_without_a_root_it_is_a_plain_process(tenant: Tenant) -> None:
    """A server whose image has no root is a process of this machine, in its directory, and ends as surely."""
    server = tenant.boot(
        '#!/bin/sh\necho "$HOME and $PWD"\nsetsid sleep 1004 &\necho started\n', image="tiny"
    )
    directory = tenant.lab.directory / "servers" / server.id
    assert f"{directory} and {directory}" in tenant.prints(server, "started")
    tenant.delete(server)
    assert until(lambda: remains(directory) == [], lambda: f"gone: {remains(directory)}", 2)


def test_a_snapshot_boots_with_what_was_changed(tenant: Tenant) -> None:
    """A snapshot is an ACTIVE image; what was added is there, what was removed is not, and so on upwards."""
    images = tenant.connection.image
    made = []
    image = "bookworm"
    for number, change in enumerate(
        ("echo one >/opt/one; rm -rf /opt/buildbot-worker", "echo two >/opt/two; rm /opt/one")
    ):
        server = tenant.boot(f"#!/bin/sh\n{change}\necho changed\n", image=image)
        tenant.prints(server, "changed")
        image = f"{tenant.master_id}-{number}"
        made.append(tenant.connection.compute.create_server_image(server.id, image))
        until(lambda: images.get_image(made[-1].id).status == "active", "the image is active")
        tenant.delete(server)
    server = tenant.boot('#!/bin/sh\necho "there: $(ls -m /opt)"\ncat /etc/hostname\necho END\n', image=image)
    assert "there: two\n" in tenant.prints(server, "END")
    for one in made:
        images.delete_image(one.id)
    kept = {path.name for path in (tenant.lab.directory / "snapshots").iterdir()}
    assert kept == {one.id for one in made}, "a server stands on both"
    tenant.delete(server)


def test_twenty_at_once(tenant: Tenant) -> None:
    """Twenty servers asked for at once all come up, run their user data, and go."""
    servers = [tenant.create(FOREVER, image="tiny") for _ in range(20)]
    until(lambda: [one.status for one in tenant.servers()] == ["ACTIVE"] * 20, "all are active", 120)
    for server in servers:
        tenant.prints(server, "started")
    tenant.delete_all()
    assert not [
        one for one in tenant.lab.server_directories() if one.name in {server.id for server in servers}
    ]


def test_the_tenant_is_a_plain_member(lab: Lab, tenant: Tenant) -> None:
    """The clouds `packages` and `other` are one project, without the administrator's rights, by credential or password."""
    projects = set()
    for cloud in ("packages", "packages-password", "other"):
        connection = lab.connect(cloud)
        projects.add(connection.current_project_id)
        with pytest.raises(openstack.exceptions.ForbiddenException):
            list(connection.compute.hypervisors())
    assert len(projects) == 1
    assert (
        len({lab.connect(cloud).current_user_id for cloud in ("packages", "packages-password", "other")}) == 2
    )
    server = tenant.create(FOREVER, image="tiny")
    assert server.id in [one.id for one in lab.connect("other").compute.servers()]


def test_the_quota_is_novas_own(tenant: Tenant) -> None:
    """Beyond the quota nova says 403, and how much is used."""
    tenant.lab.quota(instances=0)
    with pytest.raises(
        openstack.exceptions.ForbiddenException,
        match="Quota exceeded for instances: Requested 1, but already used 0 of 0",
    ):
        tenant.create()


def test_no_host_is_large_enough(tenant: Tenant) -> None:
    """The flavor `huge` makes a server of ERROR, whose fault says that there is no valid host."""
    server = tenant.boot(flavor="huge")
    assert server.status == "ERROR"
    assert "No valid host was found" in server.fault["message"]


def test_floating_addresses_come_and_go(tenant: Tenant) -> None:
    """neutron gives a floating address to a server's port, and takes it back, though no packet takes it anywhere."""
    server = tenant.boot(FOREVER, image="tiny")
    network = tenant.connection.network
    [port] = network.ports(device_id=server.id)
    outside = network.find_network("outside", ignore_missing=False)
    address = network.create_ip(floating_network_id=outside.id, port_id=port.id)
    network.set_tags(address, [tenant.tag])
    until(lambda: address.floating_ip_address in str(tenant.get(server).addresses), "nova shows it")
    assert [line.split()[0] for line in tenant.left()] == ["server", "floating"]
    network.delete_ip(address.id)
    tenant.delete(server)
    assert tenant.left() == []


def test_what_is_left_is_told(lab: Lab, tenant: Tenant) -> None:
    """What bears the master's tag is told, server or port, and nothing of another master's."""
    network = tenant.connection.network
    inside = network.find_network("lab", ignore_missing=False)
    port = network.create_port(network_id=inside.id)
    network.set_tags(port, [tenant.tag])
    server = tenant.create(image="tiny")
    assert [line.split()[0] for line in tenant.left()] == ["server", "port"]
    assert Tenant(lab).left() == []
    network.delete_port(port.id)
    tenant.delete(tenant.built(server))
    assert tenant.left() == []


def test_knob_boot_seconds(tenant: Tenant) -> None:
    """boot_seconds lies between ACTIVE and the start of the user data."""
    tenant.lab.set(boot_seconds=15)
    server = tenant.boot(FOREVER, image="tiny")
    assert "started" not in tenant.console(server)
    began = time.monotonic()
    tenant.prints(server, "started")
    assert time.monotonic() - began > 2


def test_knob_fail_spawn(tenant: Tenant) -> None:
    """fail_spawn makes the next n servers ERROR, with the reason in the fault, and then no more."""
    tenant.lab.set(fail_spawn=1, fail_spawn_reason="the disk is full")
    server = tenant.boot(image="tiny")
    assert server.status == "ERROR"
    assert "the disk is full" in server.fault["message"]
    assert tenant.boot(image="tiny").status == "ACTIVE"


def test_knob_hang_spawn(tenant: Tenant) -> None:
    """hang_spawn keeps servers in BUILD: one that is deleted goes, one that waits comes up when the knob is turned back."""
    tenant.lab.set(hang_spawn=True)
    deleted, waiting = tenant.create(image="tiny"), tenant.create(image="tiny")
    until(lambda: {one.task_state for one in tenant.servers()} == {"spawning"}, "both are spawned")
    time.sleep(2)
    assert {one.status for one in tenant.servers()} == {"BUILD"}
    tenant.delete(deleted)
    assert tenant.get(waiting).status == "BUILD"
    tenant.lab.set(hang_spawn=False)
    assert tenant.built(waiting).status == "ACTIVE"


def test_knob_never_attach(tenant: Tenant) -> None:
    """never_attach gives an ACTIVE server that prints something and runs nothing."""
    tenant.lab.set(never_attach=1)
    server = tenant.boot(FOREVER, image="tiny")
    assert server.status == "ACTIVE"
    assert tenant.console(server).strip() == "lab: this server was told to run nothing"
    tenant.delete(server)


def test_knob_fail_destroy(tenant: Tenant) -> None:
    """fail_destroy lets a delete fail after it was accepted: the server is in ERROR, lives on, and goes at the next."""
    server = tenant.boot(FOREVER, image="tiny")
    tenant.lab.set(fail_destroy=1)
    tenant.connection.compute.delete_server(server.id)
    until(lambda: tenant.get(server).status == "ERROR", "the delete has failed")
    assert (tenant.lab.directory / "servers" / server.id).exists()
    tenant.delete(server)


def test_knobs_have_names(lab: Lab) -> None:
    """A knob that does not exist is refused, and those that do are named."""
    with pytest.raises(ValueError, match="no such knob: boot_second; there are boot_seconds, "):
        lab.set(boot_second=1)


def test_a_service_can_be_killed_and_started_again(lab: Lab) -> None:
    """A killed service refuses connections, and answers again on the same port when it is started."""
    lab.kill("glance")
    assert "glance" not in lab.pids
    with pytest.raises(openstack.exceptions.SDKException):
        list(lab.connect().image.images())
    lab.start("glance")
    assert [one.name for one in lab.connect().image.images(name="tiny")] == ["tiny"]

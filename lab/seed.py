"""What is in a fresh lab: flavors, images, networks, users. Tables first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lab.layout import PASSWORD, REGION, SERVICES

if TYPE_CHECKING:
    from lab.layout import Layout

FLAVORS = (  # name, MB of memory, processors, GB of disk
    ("small", 512, 1, 5),
    ("medium", 4096, 2, 20),
    ("large", 16384, 8, 80),
    ("xlarge", 49152, 16, 100),
    ("huge", 99_999_999, 1, 5),  # no host has so much
)

IMAGES: tuple[tuple[str, dict[str, str]], ...] = (  # the last of a name is the newest
    ("tiny", {}),
    ("bookworm", {"os_distro": "debian", "os_version": "12.5", "image_date": "2026-02-10"}),
    ("bookworm", {"os_distro": "debian", "os_version": "12.12", "image_date": "2026-11-03"}),
    ("trixie", {"os_distro": "debian", "os_version": "13.2", "image_date": "2026-11-15"}),
    ("jammy", {"os_distro": "ubuntu", "os_version": "22.04", "image_date": "2026-10-20"}),
    ("centos9", {"os_distro": "centos", "os_version": "9", "image_date": "2026-09-30"}),
)

NETWORKS = (  # name, addresses; both for every project
    ("lab", "10.77.0.0/24"),
    ("second", "10.78.0.0/16"),
)

PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEqoPTQcCNyJqQCc8ECgj7IoL1WyTnTTZ3OlI8n1QJM0 ops"
"""Nobody has the other half of it."""

USERS = ("packages", "other")
"""Both are plain members of the project `packages`; the first owns an application credential."""


def catalogue(admin: Any, layout: Layout) -> None:
    """Make the services' own user, and tell keystone where they are."""
    home = admin.identity.create_project(name="service", domain_id="default")
    user = admin.identity.create_user(
        name="service", password=PASSWORD, domain_id="default", default_project_id=home.id
    )
    for name in ("admin", "service"):
        role = admin.identity.find_role(name, ignore_missing=False)
        admin.identity.assign_project_role_to_user(home, user, role)
    for name, (kind, _) in SERVICES.items():
        if name == "keystone":
            continue
        service = admin.identity.create_service(name=name, type=kind)
        for interface in ("public", "internal"):
            admin.identity.create_endpoint(
                service_id=service.id, interface=interface, url=layout.url(name), region_id=REGION
            )


def project(admin: Any) -> None:
    """Make the tenant's project, and its users."""
    made = admin.identity.create_project(name="packages", domain_id="default")
    member = admin.identity.find_role("member", ignore_missing=False)
    for name in USERS:
        user = admin.identity.create_user(
            name=name, password=PASSWORD, domain_id="default", default_project_id=made.id
        )
        admin.identity.assign_project_role_to_user(made, user, member)


def belongings(tenant: Any) -> dict[str, str]:
    """Make what belongs to the tenant; give its application credential."""
    tenant.compute.create_keypair(name="ops", public_key=PUBLIC_KEY)
    tenant.network.create_security_group(name="builders", description="machines that build packages")
    made = tenant.identity.create_application_credential(tenant.current_user_id, "packages")
    return {"id": made.id, "secret": made.secret}


def images(admin: Any) -> None:
    """Make the images: a few bytes each, as nothing boots from them."""
    for name, properties in IMAGES:
        admin.image.create_image(
            name, data=b"\0" * 4096, disk_format="raw", container_format="bare", visibility="public",
            validate_checksum=False, **properties,
        )  # fmt: skip


def networks(admin: Any) -> None:
    """Make the networks, and one outside of the cloud for floating addresses."""
    for number, (name, cidr) in enumerate(NETWORKS):
        made = admin.network.create_network(
            name=name,
            shared=True,
            provider_network_type="flat",
            provider_physical_network=f"physical{number}",
        )
        gateway = cidr.rpartition(".")[0] + ".1"
        admin.network.create_subnet(
            network_id=made.id, ip_version=4, cidr=cidr, gateway_ip=gateway, enable_dhcp=False
        )
    outside = admin.network.create_network(
        name="outside", is_router_external=True, provider_network_type="flat",
        provider_physical_network="outside",
    )  # fmt: skip
    admin.network.create_subnet(network_id=outside.id, ip_version=4, cidr="10.79.0.0/24", enable_dhcp=False)
    inside = admin.network.find_network("lab", ignore_missing=False)
    router = admin.network.create_router(name="lab", external_gateway_info={"network_id": outside.id})
    admin.network.add_interface_to_router(router, subnet_id=inside.subnet_ids[0])


def flavors(admin: Any) -> None:
    """Make the flavors."""
    for name, memory, processors, disk in FLAVORS:
        admin.compute.create_flavor(name=name, ram=memory, vcpus=processors, disk=disk)

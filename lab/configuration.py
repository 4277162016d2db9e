"""The configuration files of the services, as tables."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import yaml

from lab.layout import DRIVERS, HOST, PASSWORD, REGION, VENV

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lab.layout import Layout

Sections = dict[str, dict[str, object]]

DATABASE = "mysql+pymysql://root@localhost/{}?unix_socket=mysql/mysql.sock&charset=utf8mb4"
"""The socket is named from the lab's directory, in which every service runs: an absolute path may be too long."""

MANY = 100000
"""More than any test makes: what shall not be the limit."""


def write(layout: Layout) -> None:
    """Write the configuration of every service."""
    etc = layout.directory / "etc"
    for service, sections in {
        "keystone": _keystone(layout),
        "glance": _glance(layout),
        "placement": _placement(layout),
        "neutron": _neutron(layout),
        "nova": _nova(layout),
    }.items():
        directory = etc / service
        directory.mkdir(parents=True, exist_ok=True)
        name = {"glance": "glance-api.conf"}.get(service, f"{service}.conf")
        (directory / name).write_text(_ini(sections))
    for service in ("nova", "neutron"):
        shutil.copy(VENV / "etc" / service / "api-paste.ini", etc / service)
    _write_network_driver(layout.directory / "lib")


def write_clouds(path: Path, auth_url: str, credential: Mapping[str, str]) -> None:
    """Write clouds.yaml: the administrator's cloud and the tenant's."""

    def by_password(user: str, project: str) -> dict[str, object]:
        return {
            "auth": {
                "auth_url": auth_url,
                "username": user,
                "password": PASSWORD,
                "project_name": project,
                "user_domain_id": "default",
                "project_domain_id": "default",
            },
            "region_name": REGION,
        }

    clouds: dict[str, object] = {
        "lab": by_password("admin", "admin"),
        "packages-password": by_password("packages", "packages"),
        "other": by_password("other", "packages"),
    }
    if credential:
        clouds["packages"] = {
            "auth_type": "v3applicationcredential",
            "auth": {
                "auth_url": auth_url,
                "application_credential_id": credential["id"],
                "application_credential_secret": credential["secret"],
            },
            "region_name": REGION,
        }
    path.write_text(yaml.safe_dump({"clouds": clouds}))
    path.chmod(0o600)


def _keystone(layout: Layout) -> Sections:
    return {
        "DEFAULT": {"log_file": layout.logs / "keystone.log", "list_limit": MANY},
        "database": _database("keystone"),
        "identity": {"password_hash_rounds": "4"},  # a quarter of a second for each log-in otherwise
        "cache": {"enabled": "true", "backend": "dogpile.cache.memory"},
        "fernet_tokens": {"key_repository": layout.directory / "fernet"},
        "fernet_receipts": {"key_repository": layout.directory / "fernet"},
        "credential": {"key_repository": layout.directory / "cred"},
    }


def _glance(layout: Layout) -> Sections:
    images = layout.directory / "images"
    return {
        "DEFAULT": {"log_file": layout.logs / "glance.log", "enabled_backends": "file:file"},
        "glance_store": {"default_backend": "file"},
        "file": {"filesystem_store_datadir": images},
        "os_glance_tasks_store": {"filesystem_store_datadir": images / "tasks"},
        "os_glance_staging_store": {"filesystem_store_datadir": images / "staging"},
        "database": _database("glance"),
        "paste_deploy": {
            "flavor": "keystone",
            "config_file": VENV / "etc/glance/glance-api-paste.ini",
        },
        "keystone_authtoken": _tokens(layout),
        **_everywhere(layout),
    }


def _placement(layout: Layout) -> Sections:
    return {
        "DEFAULT": {"log_file": layout.logs / "placement.log"},
        "placement_database": {**_database("placement"), "sync_on_startup": "true"},
        "keystone_authtoken": _tokens(layout),
    }


def _neutron(layout: Layout) -> Sections:
    return {
        "DEFAULT": {
            "log_file": layout.logs / "neutron.log",
            "core_plugin": "ml2",
            "service_plugins": "router",
            "setproctitle": "off",  # it would wipe the mark by which we know our processes
            "transport_url": "fake://",
            "notify_nova_on_port_status_changes": "false",
            "notify_nova_on_port_data_changes": "true",  # else nova shows floating addresses late
            "api_paste_config": layout.directory / "etc/neutron/api-paste.ini",
            "state_path": layout.directory / "neutron",
        },
        "database": _database("neutron"),
        "ml2": {
            "type_drivers": "flat,local",
            "tenant_network_types": "local",
            "mechanism_drivers": "lab",
            "extension_drivers": "",
        },
        "quotas": {"default_quota": "-1", "quota_port": "-1", "quota_network": "-1", "quota_subnet": "-1",
                   "quota_security_group": "-1", "quota_security_group_rule": "-1", "quota_floatingip": "50"},
        "securitygroup": {"enable_security_group": "true"},
        "nova": _client(layout),
        "keystone_authtoken": _tokens(layout),
        **_everywhere(layout),
    }  # fmt: skip


def _nova(layout: Layout) -> Sections:
    return {
        "DEFAULT": {
            "concurrency_backend": "threading",
            "host": "lab-host",
            "my_ip": HOST,
            "state_path": layout.directory,
            "log_file": layout.logs / "nova.log",
            "transport_url": "fake://",
            "compute_driver": DRIVERS[layout.driver],
            "instances_path": layout.directory / "instances",
            "vif_plugging_is_fatal": "false",
            "vif_plugging_timeout": "0",
            "flat_injected": "true",
            "reserved_host_memory_mb": "512",
            "mkisofs_cmd": "genisoimage",
            "rootwrap_config": VENV / "etc/nova/rootwrap.conf",
            "max_concurrent_builds": "0",
            "default_thread_pool_size": "200",
            "executor_thread_pool_size": "200",
        },
        "api": {"max_limit": "1000"},
        "api_database": _database("nova_api"),
        "database": _database("nova_cell1"),
        "quota": dict.fromkeys(("instances", "cores", "ram", "server_groups", "key_pairs"), MANY),
        "filter_scheduler": {
            "enabled_filters": "ComputeFilter,ComputeCapabilitiesFilter,ImagePropertiesFilter"
        },
        "glance": {"api_servers": layout.url("glance")},
        "vnc": {"enabled": "false"},
        "libvirt": {
            "virt_type": "qemu",
            "connection_uri": "qemu:///system",
            "cpu_mode": "none",
            "hw_machine_type": "x86_64=pc",
            "inject_partition": "-2",
        },
        "nova_sys_admin": {
            "helper_command": f"{VENV}/bin/privsep-helper --config-file {layout.directory}/etc/nova/nova.conf"
        },
        "placement": _client(layout),
        "neutron": _client(layout),
        # Without its token neutron lets no tenant's server give its port back.
        "service_user": {**_client(layout), "send_service_user_token": "true"},
        "keystone_authtoken": _tokens(layout),
        **_everywhere(layout),
    }


def _database(name: str) -> dict[str, object]:
    return {"connection": DATABASE.format(name), "max_pool_size": "30", "max_overflow": "60"}


def _account(layout: Layout) -> dict[str, object]:
    return {
        "auth_type": "password",
        "auth_url": layout.url("keystone"),
        "username": "service",
        "password": PASSWORD,
        "project_name": "service",
        "user_domain_id": "default",
        "project_domain_id": "default",
    }


def _client(layout: Layout) -> dict[str, object]:
    return {**_account(layout), "region_name": REGION}


def _tokens(layout: Layout) -> dict[str, object]:
    return {**_account(layout), "service_token_roles_required": "true", "service_token_roles": "service"}


def _everywhere(layout: Layout) -> Sections:
    return {
        "oslo_concurrency": {"lock_path": layout.directory / "lock"},
        "oslo_messaging_notifications": {"driver": "noop"},
    }


def _ini(sections: Sections) -> str:
    return "\n".join(
        "\n".join([f"[{name}]", *(f"{key} = {value}" for key, value in values.items()), ""])
        for name, values in sections.items()
    )


def _write_network_driver(library: Path) -> None:
    """Register the lab's ML2 driver: neutron finds drivers by entry points only."""
    metadata = library / "buildpackages_lab-1.0.dist-info"
    metadata.mkdir(parents=True, exist_ok=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: buildpackages-lab\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[neutron.ml2.mechanism_drivers]\nlab = lab.inside.network_driver:NetworkDriver\n"
    )

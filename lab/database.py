"""The lab's MariaDB, and the tables of all services in it."""

from __future__ import annotations

import getpass
import os
import socket
import time
from typing import TYPE_CHECKING

from lab.configuration import DATABASE
from lab.errors import LabError
from lab.layout import DATABASES, PASSWORD, REGION, SERVICES

if TYPE_CHECKING:
    from lab.layout import Layout
    from lab.processes import Processes

_PATIENCE = 30.0

INIT_FILE = "init.sql"


def create(layout: Layout, processes: Processes) -> None:
    """Make an empty database."""
    processes.start(
        "mariadb-install-db",
        ["mariadb-install-db", "--no-defaults", f"--user={getpass.getuser()}",
         f"--datadir={layout.directory / 'mysql'}", "--auth-root-authentication-method=normal",
         "--innodb-log-file-size=16M", "--skip-test-db"],
    )  # fmt: skip
    processes.finish("mariadb-install-db")


def start(layout: Layout, processes: Processes, statements: list[str]) -> None:
    """Start the database, have it do some statements first, and wait until it takes connections."""
    data = layout.directory / "mysql"
    (layout.directory / INIT_FILE).write_text("".join(f"{statement};\n" for statement in statements))
    (data / "mysql.sock").unlink(missing_ok=True)
    processes.start(
        "mariadb",
        ["mariadbd", "--no-defaults", f"--user={getpass.getuser()}", f"--datadir={data}",
         "--socket=mysql.sock", "--pid-file=mysql.pid", f"--init-file={layout.directory / INIT_FILE}",
         "--skip-networking", "--skip-name-resolve", "--max-connections=800", "--innodb-buffer-pool-size=96M",
         "--innodb-log-file-size=16M", "--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0",
         "--innodb-fast-shutdown=1", "--skip-log-bin", "--character-set-server=utf8mb3",
         "--collation-server=utf8mb3_general_ci"],
    )  # fmt: skip
    deadline = time.monotonic() + _PATIENCE
    while not _answers(layout):
        processes.check()
        if time.monotonic() > deadline:
            raise LabError(f"the database does not start: {processes.last_words('mariadb')}")
        time.sleep(0.05)


def fill(layout: Layout, processes: Processes) -> None:
    """Make every service's tables, side by side, and keystone's first user."""
    keystone = ["keystone-manage", "--config-file", str(layout.directory / "etc/keystone/keystone.conf")]
    user = getpass.getuser()
    url = layout.url("keystone")
    steps = [
        [*keystone, "db_sync"],
        [*keystone, "fernet_setup", "--keystone-user", user, "--keystone-group", user],
        [*keystone, "bootstrap", "--bootstrap-password", PASSWORD, "--bootstrap-region-id", REGION,
         "--bootstrap-public-url", url, "--bootstrap-internal-url", url, "--bootstrap-admin-url", url],
    ]  # fmt: skip
    both = {
        "init-glance": ["glance-manage", "--config-file",
                        str(layout.directory / "etc/glance/glance-api.conf"), "db_sync"],
        "init-neutron": ["python", "-m", "lab.inside.neutron_init", DATABASE.format("neutron")],
        "init-nova": ["python", "-m", "lab.inside.nova_init", str(layout.directory / "etc/nova/nova.conf")],
    }  # fmt: skip
    for name, command in both.items():
        processes.start(name, command)
    for number, command in enumerate(steps):
        processes.start(f"init-keystone-{number}", command)
        processes.finish(f"init-keystone-{number}")
    for name in both:
        processes.finish(name)


def creation() -> list[str]:
    """Give the statements that make the databases."""
    return [f"CREATE DATABASE {name}" for name in DATABASES]


def relocation(layout: Layout, made_in: str) -> list[str]:
    """Give the statements that make a copied database this lab's: its ports and its directory."""
    urls = [
        "UPDATE keystone.endpoint e JOIN keystone.service s ON e.service_id = s.id"
        f" SET e.url = '{url}' WHERE s.type = '{SERVICES[service][0]}'"
        for service, url in layout.endpoints.items()
    ]
    images = (
        "UPDATE glance.image_locations SET value ="
        f" REPLACE(value, '{_quoted(made_in)}/images/', '{_quoted(str(layout.directory))}/images/')"
    )
    return [*urls, images]


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "''")


def _answers(layout: Layout) -> bool:
    """Whether the database takes connections; by a name that is short enough, however deep the lab lies."""
    handle = os.open(layout.directory / "mysql", os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(f"/proc/self/fd/{handle}/mysql.sock") == 0
    finally:
        os.close(handle)

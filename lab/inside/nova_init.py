"""Makes nova's three databases and its one cell: `python -m lab.inside.nova_init NOVA_CONF`."""

# ruff: noqa: E402  the threading backend is chosen before anything else of nova is imported
from __future__ import annotations

from nova import monkey_patch

monkey_patch.patch(backend="threading")

import sys

from nova import config, objects
from nova.cmd import manage


def main(configuration: str) -> None:
    """Make them; cells are written as patterns, which nova fills from its own configuration."""
    config.parse_args(["nova-manage", "--config-file", configuration])
    objects.register_all()
    pattern = "{{scheme}}://{{username}}@{{hostname}}/{}?{{query}}"
    cells = manage.CellV2Commands()
    manage.ApiDbCommands().sync()
    cells.map_cell0(pattern.format("nova_cell0"))
    manage.DbCommands().sync(local_cell=False)
    cells.create_cell(name="cell1", database_connection=pattern.format("nova_cell1"), transport_url="fake://")


if __name__ == "__main__":
    main(sys.argv[1])

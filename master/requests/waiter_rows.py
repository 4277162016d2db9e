"""Keeps waiters in the database, in one row for each buildrequest: a new waiter rewrites only the row of that request."""

# mypy: allow-untyped-calls
# Buildbot's database connector is annotated in part only.

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

Rows = list[dict[str, Any]]

_PREFIX = "waiters of "


class WaiterRows:
    """Rows of one object's state in Buildbot's table `object_state`, which itself never removes any."""

    def __init__(self, db: Any, object_id: int) -> None:
        self._db = db
        self._object_id = object_id

    async def load(self) -> dict[int, Rows]:
        """Return the rows of every buildrequest that has some."""
        table = self._db.model.object_state

        def read(connection: Any) -> dict[int, Rows]:
            query = table.select().where(
                table.c.objectid == self._object_id, table.c.name.startswith(_PREFIX, autoescape=True)
            )
            return {
                int(row.name.removeprefix(_PREFIX)): json.loads(row.value_json)
                for row in connection.execute(query)
            }

        found: dict[int, Rows] = await self._db.pool.do(read)
        return found

    async def write(self, request: int, rows: Rows) -> None:
        """Keep the rows of a buildrequest; without any, remove what was kept."""
        if rows:
            await self._db.state.setState(self._object_id, f"{_PREFIX}{request}", rows)
        else:
            await self.remove([request])

    async def remove(self, requests: Iterable[int]) -> None:
        """Remove what was kept of buildrequests."""
        table = self._db.model.object_state
        names = [f"{_PREFIX}{request}" for request in requests]

        def delete(connection: Any) -> None:
            for name in names:  # one by one: databases limit the values of one statement
                connection.execute(
                    table.delete().where(table.c.objectid == self._object_id, table.c.name == name)
                )
            connection.commit()

        if names:
            await self._db.pool.do(delete)

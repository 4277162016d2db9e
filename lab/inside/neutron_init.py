"""Makes neutron's tables in one go: its migrations take long, and the result is the same."""

from __future__ import annotations

import sys

import sqlalchemy
from neutron.db.migration.models import head

if __name__ == "__main__":
    head.get_metadata().create_all(sqlalchemy.create_engine(sys.argv[1]))

"""Serves a WSGI application on a socket that the lab has opened: `python -m lab.inside.serve MODULE`.

The number of the socket is in $LAB_SOCKET. Nobody else can take its port in between, and a client
that comes early waits for the first answer.
"""

from __future__ import annotations

import importlib
import os
import socket
import sys
import types
from typing import Any

import waitress


def serve(application: Any, threads: int) -> None:
    """Serve until killed."""
    listener = socket.socket(fileno=int(os.environ["LAB_SOCKET"]))
    waitress.serve(application, sockets=[listener], threads=threads)


def without_saml() -> None:
    """Have keystone start without the schemas of SAML, which take a third of its start: nobody here speaks it."""
    schemas = types.ModuleType("saml2.xml.schema")
    vars(schemas).update(validate=None, XMLSchemaError=Exception)
    sys.modules[schemas.__name__] = schemas


if __name__ == "__main__":
    module = sys.argv[1]
    without_saml()
    sys.argv = [module]  # oslo.config reads the command line
    serve(importlib.import_module(module).application, threads=12)

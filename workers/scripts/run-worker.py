"""Runs one buildbot-worker in this directory; what it needs to know comes as JSON on standard input.

So the password is neither in a file, nor on a command line, nor in an environment.
"""

import json
import os
import sys

library = sys.argv[1:2]
sys.path[:0] = library

from buildbot_worker.bot import Worker  # noqa: E402
from twisted.internet import reactor  # noqa: E402
from twisted.python import log  # noqa: E402

config = json.loads(sys.stdin.readline())
sys.stdin.close()
os.close(0)
os.open(os.devnull, os.O_RDONLY)
log.startLogging(sys.stdout, setStdout=False)
worker = Worker(
    config["host"],
    config["port"],
    config["name"],
    config["password"],
    os.getcwd(),
    keepalive=60,
    maxdelay=5,
    umask=0o022,
)
del config
worker.startService()
reactor.run()

"""Run by the Python of teuthology's virtual environment: exchanges in a process that teuthology has patched.

Reads `[[url, seconds], …]` in JSON, and writes for each what came of it, and how often another greenlet ran meanwhile.
"""

import json
import sys

import gevent
import teuthology  # noqa: F401 - patches this process as it does a job's
from gevent import monkey

from teuthology_bridge import wire
from teuthology_bridge.timed_socket import Waits

HANGING = "hangs.invalid"


def hanging_getaddrinfo(host, *arguments, **named):
    if host == HANGING:
        monkey.get_original("time", "sleep")(600)
    return real(host, *arguments, **named)


def outcome(url, seconds, waits=None):
    try:
        return wire.exchange("GET", url, timeout=seconds, waits=waits).text[:100]
    except wire.NoAnswer as error:
        return str(error)


def tick():
    global ticks
    while True:
        ticks += 1
        gevent.sleep(0.01)


def in_the_hub(url, seconds):
    """Where a handler of signals runs: nothing there may switch to another greenlet."""
    done = []
    gevent.get_hub().loop.run_callback(lambda: done.append(outcome(url, seconds, Waits.of_signal_handler())))
    while not done:
        gevent.sleep(0.01)
    return done[0]


assert monkey.is_module_patched("socket")
assert monkey.is_module_patched("threading")
real = monkey.get_original("socket", "getaddrinfo")
monkey.saved["socket"]["getaddrinfo"] = hanging_getaddrinfo
ticks = 0
gevent.spawn(tick)
rows = []
for url, seconds in json.load(sys.stdin):
    before = ticks
    told = outcome(url, seconds)
    meanwhile = ticks - before
    rows.append([told, meanwhile, in_the_hub(url, seconds)])
json.dump(rows, sys.stdout)

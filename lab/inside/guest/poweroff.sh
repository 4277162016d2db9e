#!/bin/sh
# poweroff, or shutdown [-P] now: ends a server of the lab at once.
kill -TERM "$(cat /run/lab-init.pid)"

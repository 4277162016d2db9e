#!/usr/bin/env bash
# machine.sh: reports what machine this is: system, cores, memory in MiB, and stand_in, which is not empty if it
# only stands in for the target's distribution.
. "$(dirname "$0")/common.sh"
# shellcheck source=/dev/null
system=$(. /etc/os-release && printf '%s' "$PRETTY_NAME")
value system "$system"
value cores "$(nproc)"
value memory "$(awk '/^MemAvailable/ {print int($2 / 1024)}' /proc/meminfo)"
value stand_in "${BUILDPACKAGES_STAND_IN:-}"
uname -a
id

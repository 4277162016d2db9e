#!/usr/bin/env bash
# machine.sh: prints what machine this is: system=, cores=, memory= in MiB, and stand_in= if it only
# stands in for the target's distribution.
. "$(dirname "$0")/common.sh"
# shellcheck source=/dev/null
system=$(. /etc/os-release && printf '%s' "$PRETTY_NAME")
printf 'system=%s\n' "$system"
printf 'cores=%s\n' "$(nproc)"
printf 'memory=%s\n' "$(awk '/^MemAvailable/ {print int($2 / 1024)}' /proc/meminfo)"
printf 'stand_in=%s\n' "${BUILDPACKAGES_STAND_IN:-}"
uname -a
id

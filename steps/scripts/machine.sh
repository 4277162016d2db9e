#!/usr/bin/env bash
# machine.sh NEEDS: reports system, cores, memory in MiB, and stand_in, which is not empty if the machine is only a
# stand-in for the target's distribution. It fails if the machine lacks a command that builds call.
#
# The file NEEDS has a line for each command: its name, or python3:MODULE, and the packages of apt, dnf and zypper that
# contain it; `-` if that family does not need it.
. "$(dirname "$0")/common.sh"
# shellcheck source=/dev/null
system=$(. /etc/os-release && printf '%s' "$PRETTY_NAME")
value system "$system"
value cores "$(nproc)"
value memory "$(awk '/^MemAvailable/ {print int($2 / 1024)}' /proc/meminfo)"
value stand_in "${BUILDPACKAGES_STAND_IN:-}"
uname -a
id

has() {
    case $1 in
        python3:*) python3 -I -c "import ${1#*:}" ;;
        *) command -v "$1" ;;
    esac >/dev/null 2>&1
}
# The stand-in for an rpm distribution has dnf as well as apt-get, and gets its packages from apt.
if has apt-get; then column=1; elif has dnf; then column=2; else column=3; fi
missing=() install=()
while read -ra row; do
    name=${row[0]} package=${row[column]}
    if [ "$package" = - ] || has "$name"; then continue; fi
    missing+=("${name/python3:/the Python module }")
    [[ " ${install[*]} " == *" $package "* ]] || install+=("$package")
done <"$1"
[ ${#missing[@]} = 0 ] || {
    printf -v names '%s, ' "${missing[@]}"
    fail "$system lacks what builds call: ${names%, }. Install ${install[*]} on this machine, or in the image that it is made from"
}

#!/bin/bash
# User data of the machine that `python -m workers.doctor --server` makes: it says on its console whether
# it reaches the master, and powers itself off if it is forgotten.
# Arguments: seconds until then, and the addresses, each as HOST PORT.
set -u
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

say() {
    printf 'doctor: %s\n' "$*"
}

# shellcheck disable=SC2016  # the inner bash expands it
setsid bash -c 'sleep "$0"; poweroff -f || shutdown -P now' "$1" </dev/null >/dev/null 2>&1 &
shift
say "the user data runs"
while [ "$#" -ge 2 ]; do
    # shellcheck disable=SC2016  # the inner bash expands them
    if told=$(timeout 20 bash -c ': <>"/dev/tcp/$0/$1"' "$1" "$2" 2>&1); then
        say "reaches $1 $2"
    else
        say "does not reach $1 $2 (${told##*: })"
    fi
    shift 2
done
say "done"

# What every build machine does, once, at its first boot: it gets ready, and starts the worker of one build.
#
# A line for each phase goes to the console, with the seconds since the start. What fails says FAILED
# there and powers the machine off, so that nobody waits for it. It may run again: what is there is kept.
# shellcheck shell=bash disable=SC2154  # what values.sh and the family's file say
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
umask 022
user=build
library=/opt/buildbot-worker
state=/run/buildpackages
grace=10 # seconds in which the master can read on the console why the machine ends
linger=300 # the same for a machine that failed: nova with libvirt has no console of a server that is off

say() {
    printf 'buildpackages: %s s: %s\n' "$SECONDS" "$*"
}

fail() {
    printf 'buildpackages: FAILED after %s s: %s\n' "$SECONDS" "$*"
    trap - EXIT
    if [ -f "$state/power-off" ]; then
        sleep "$linger"
        bash "$state/power-off" "it is of no use"
    fi
    exit 1
}
trap 'fail "$doing: a command ended with status $?"' EXIT

# COMMAND...: its output on the console only if it fails.
quietly() {
    local status=0
    "$@" >"$state/output" 2>&1 </dev/null || status=$?
    [ "$status" = 0 ] || tail -n 15 "$state/output"
    return "$status"
}

# COMMAND...: three tries, since mirrors and package managers are busy at times.
attempt() {
    local pause
    for pause in 5 20; do
        ! quietly "$@" || return 0
        say "$1 failed; once more in $pause s"
        sleep "$pause"
    done
    quietly "$@" || fail "$*: status $?; its last words are above"
}

# Nothing else can be trusted to end this machine if the master is gone for ever.
arm_expiry() {
    rm -rf "$state"
    mkdir -m 700 "$state"
    # Run as an argument of bash, since /run may be mounted noexec.
    cat >"$state/power-off" <<'END'
#!/bin/bash
# power-off REASON: ends this machine, whatever kind of machine it is. Nothing on it is worth a clean end.
echo "buildpackages: this machine powers itself off: $1"
if [ -d /run/systemd/system ]; then
    systemctl poweroff --force && sleep 30
    systemctl poweroff --force --force && sleep 10
fi
if command -v poweroff >/dev/null; then poweroff -f && sleep 10; fi
{ echo o >/proc/sysrq-trigger; } 2>/dev/null && sleep 10
# In a container, PID 1 ends when what it has started does.
kill -TERM 1
kill -KILL -1
END
    cat >"$state/expire" <<'END'
#!/bin/bash
# expire TIME POWER_OFF: waits for the time, also if the clock is set meanwhile.
while left=$(($1 - $(date +%s))) && [ "$left" -gt 0 ]; do
    sleep $((left < 30 ? left : 30))
done
exec bash "$2" "its time is over"
END
    if [ -d /run/systemd/system ]; then
        systemctl stop buildpackages-expiry.service 2>/dev/null || true
        quietly systemd-run --quiet --collect --unit=buildpackages-expiry \
            --property=StandardOutput=journal+console \
            bash "$state/expire" "$expires" "$state/power-off"
    else
        setsid bash "$state/expire" "$expires" "$state/power-off" </dev/null &
    fi
    # A machine that boots again has no worker and no expiry. A machine made from an image of this one has
    # another instance id, and is none of this one's business.
    local cloud=/var/lib/cloud
    if [ -f $cloud/data/instance-id ] && [ -d $cloud/scripts/per-boot ]; then
        {
            echo '#!/bin/bash'
            echo '# Written by user data: this machine was made for one boot.'
            # shellcheck disable=SC2016
            printf '[ "$(cat %s)" != %q ] || systemctl poweroff --force || poweroff -f\n' \
                $cloud/data/instance-id "$(cat $cloud/data/instance-id)"
        } >$cloud/scripts/per-boot/buildpackages
        chmod 700 $cloud/scripts/per-boot/buildpackages
    fi
}

# The password is in here. Root can still get it where cloud-init got it, so it is worth one boot only.
forget_user_data() {
    rm -f /var/lib/cloud/instance/user-data.txt* /var/lib/cloud/instance/scripts/part-*
}

# NEED: succeeds if the machine has the command, or the module of python3:MODULE.
has() {
    case $1 in
        python3:*) python3 -I -c "import ${1#*:}" ;;
        *) command -v "$1" ;;
    esac >/dev/null 2>&1
}

add_packages() {
    local missing=() one
    for one in "${needs[@]}"; do
        has "$one" || missing+=("$one")
    done
    if [ ${#missing[@]} = 0 ]; then
        say "what builds need is there"
    else
        say "installing what builds need; missing: ${missing[*]}"
        install_packages
        hash -r
        for one in "${missing[@]}"; do
            has "$one" || fail "there is still no $one, although all packages are installed"
        done
        say "what builds need is installed"
    fi
    for python in python3 python3.13 python3.12 python3.11 python3.10 python3.9; do
        ! "$python" -I -c 'import json, ssl, sys, urllib.request, zipfile; sys.exit(sys.version_info < (3, 8))' \
            2>/dev/null || return 0
    done
    fail "there is no whole Python from 3.8 on"
}

add_user() {
    id "$user" >/dev/null 2>&1 || quietly useradd --user-group --create-home --shell /bin/bash "$user"
    mkdir -p /etc/sudoers.d
    printf '%s\n' "$user ALL=(ALL:ALL) NOPASSWD: ALL" "Defaults:$user !use_pty" >"/etc/sudoers.d/$user"
    chmod 440 "/etc/sudoers.d/$user"
    home=$(getent passwd "$user" | cut -d: -f6)
    install -d -o "$user" -g "$user" "$home/worker"
}

# Whether the image has the right one, with whatever of it is compiled for this Python.
has_worker() {
    [ -d "$library/buildbot_worker-$buildbot_worker.dist-info" ] && "$python" -I - "$library" "$with_tls" <<'END' 2>/dev/null
import sys
from importlib.util import find_spec
sys.path.insert(0, sys.argv[1])
import msgpack, zope.interface
sys.exit(not all(find_spec(name) for name in ["buildbot_worker", "twisted", *sys.argv[2].split()]))
END
}

add_worker() {
    if has_worker; then
        say "buildbot-worker $buildbot_worker is there"
    else
        say "getting buildbot-worker $buildbot_worker from $wheels"
        print_install_worker >"$state/install-worker.py"
        printf '%s\n' "$wheels_config" | "$python" -I "$state/install-worker.py" >"$state/output" 2>&1 ||
            fail "buildbot-worker cannot be had: $(tail -n 1 "$state/output")"
        say "buildbot-worker $buildbot_worker is installed: $(tail -n 1 "$state/output")"
    fi
    print_run_worker >"$library/run-worker.py"
}

start_worker() {
    # In memory where there is systemd, and gone as soon as it is open.
    (umask 077 && printf '%s\n' "$worker_config" >"$state/worker.json")
    {
        declare -p user home library state grace python target
        cat <<'END'
# attend: runs the worker as the user, and says how it ended.
cd "$home/worker" && exec 3<"$state/worker.json" && rm "$state/worker.json" || exit
status=0
env -i LANG=C.UTF-8 PATH="$PATH" HOME="$home" USER="$user" LOGNAME="$user" PYTHONDONTWRITEBYTECODE=1 \
    setpriv --reuid="$(id -u "$user")" --regid="$(id -g "$user")" --init-groups --inh-caps=-all \
    "$python" -I "$library/run-worker.py" "$library" <&3 3<&- || status=$?
echo "buildpackages: the worker for $target ended with status $status"
sleep "$grace"
exec bash "$state/power-off" "without a worker it is of no use"
END
    } >"$state/attend"
    say "the worker starts, and connects to $master $with"
    if [ -d /run/systemd/system ]; then
        # A compiler that memory runs out for must not take the worker with it.
        quietly systemd-run --quiet --unit=buildpackages-worker --setenv=PATH="$PATH" \
            --property=StandardOutput=journal+console --property=StandardError=inherit \
            --property=TasksMax=infinity --property=OOMPolicy=continue bash "$state/attend"
        trap - EXIT
    else
        trap - EXIT
        exec bash "$state/attend"
    fi
}

doing="beginning"
say "this machine is for $target, worker $worker, until $(date -u -d "@$expires" '+%F %T UTC')"
[ "$(id -u)" = 0 ] || fail "user data must run as root, not as $(id -un)"
doing="arming the expiry"
arm_expiry
forget_user_data
doing="installing packages"
add_packages
doing="adding the user $user"
add_user
doing="adding the worker"
add_worker
doing="starting the worker"
start_worker

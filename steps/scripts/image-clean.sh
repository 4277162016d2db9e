#!/usr/bin/env bash
# image-clean.sh [HOME]: removes from this machine what no machine made from its image may inherit: secrets,
# identity, traces and caches. What runs goes on running, but nothing can be built here any more.
# First of all: the key of the report is read once.
[ "$EUID" = 0 ] || exec sudo -n bash "$(realpath "$0")" "$HOME"
. "$(dirname "$0")/common.sh"
# User data has made this directory.
[ -d /run/buildpackages ] || fail "this is no machine that was made for one build, and would lose what it is"
home=${1:-$HOME}
cd /
shopt -s nullglob dotglob

# Caches.
if command -v apt-get >/dev/null; then
    apt-get clean
    rm -rf /var/lib/apt/lists/*
fi
if command -v dnf >/dev/null; then dnf --quiet clean all; fi
if command -v zypper >/dev/null; then zypper --quiet clean --all; fi
rm -rf /root/.cache "$home/.cache"

# What belongs to this build, and the password of this boot wherever cloud-init keeps it. Without these,
# cloud-init takes the next boot for the first one, and user data runs.
rm -rf "$home/worker"
rm -rf /var/lib/cloud/{instance,instances,data,sem} /var/lib/cloud/scripts/per-boot/buildpackages
rm -f {/root,"$home"}/.{bash_history,python_history,lesshst,netrc,git-credentials,viminfo} {/root,"$home"}/.ssh/id_*
find /tmp /var/tmp -xdev -mindepth 1 -delete 2>/dev/null || true

# What tells one machine from another: made anew at the next boot.
[ ! -e /etc/machine-id ] || : >/etc/machine-id
[ -L /var/lib/dbus/machine-id ] || rm -f /var/lib/dbus/machine-id
rm -f /etc/ssh/ssh_host_* /var/lib/systemd/{random-seed,credential.secret} /etc/udev/rules.d/70-persistent-net.rules
rm -rf /var/lib/dhcp/* /var/lib/dhclient/* /var/lib/NetworkManager/*.lease /run/systemd/netif/leases/*

# Logs stay as empty files: some services do not make theirs.
rm -rf /var/log/journal/*
find /var/log -xdev -type f -exec truncate --size=0 {} +

fstrim --all 2>/dev/null || true
sync
value used "$(df -h --output=used / | tail -n 1 | tr -d ' ')"

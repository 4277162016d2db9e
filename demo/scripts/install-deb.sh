#!/bin/sh
# install-deb.sh BASE_URL CODENAME KEY_URL KEEP_SOURCES PROGRAM PACKAGE...: runs as root of a clean,
# throw-away root; installs with apt, the repository's signature checked against our key alone.
set -eu
base_url=$1 codename=$2 key_url=$3 keep_sources=$4 program=$5
shift 5
[ "$keep_sources" = yes ] || rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*
mkdir -p /etc/apt/keyrings
python3 -c 'import sys, urllib.request; sys.stdout.buffer.write(urllib.request.urlopen(sys.argv[1]).read())' \
    "$key_url" >/etc/apt/keyrings/ceph.asc
echo "deb [signed-by=/etc/apt/keyrings/ceph.asc] $base_url $codename main" >/etc/apt/sources.list.d/ceph.list
export DEBIAN_FRONTEND=noninteractive
apt-get -q update
apt-get -q -y --no-install-recommends install "$@"
sh -c "$program"

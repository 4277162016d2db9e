#!/bin/bash
# system-packages.sh runtime|crun|tests...: the Debian or Ubuntu packages that the master, the setting `workers.local.engine: crun`
# or the tests need on the machine; asks the network only if one is missing.
set -euo pipefail
declare -A groups=(
    [runtime]='apt-utils ca-certificates createrepo-c debian-archive-keyring dpkg-dev git gnupg mmdebstrap patch python3-venv rpm util-linux xz-utils'
    [crun]='crun e2fsprogs golang-github-containers-common iproute2'
    [tests]='beanstalkd build-essential bzip2 chromium chromium-driver cmake curl debhelper debsecan devscripts dh-python dpkg-dev equivs fakeroot fonts-dejavu-core gpg lsb-release nginx-light pkg-config postgresql procps rsync python3-pip shellcheck sudo wget'
    [audit]='debsecan'
    [lab]='mariadb-client-core mariadb-common mariadb-server-core util-linux'
    [lab-vm]='e2fsprogs gcc genisoimage iproute2 libvirt-clients libvirt-daemon libvirt-daemon-driver-qemu libvirt-dev mmdebstrap pkg-config python3-dev qemu-system-x86 qemu-utils util-linux'
)
wanted=()
for group in "$@"; do
    for package in ${groups[$group]}; do
        dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q ' installed$' || wanted+=("$package")
    done
done
[ ${#wanted[@]} -gt 0 ] || exit 0
echo "* installing ${wanted[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
{ apt-get -q update && apt-get -q -y --no-install-recommends install "${wanted[@]}"; } >"$log" 2>&1 || {
    cat "$log" >&2
    echo "failed: apt-get could not install ${wanted[*]}" >&2
    exit 1
}

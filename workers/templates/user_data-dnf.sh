#!/bin/bash
# User data of a build machine with CentOS Stream, Rocky, or another of that family.
# shellcheck disable=SC2034  # values.sh and common.sh use what is said here, and the other way round
set -euo pipefail

# shellcheck source=/dev/null
. values.sh

needs=(bzip2 cmake createrepo_c dnf g++ git make ps python3 rpmbuild rpmspec sudo tar xz zgrep)
packages=(
    bzip2 ca-certificates cmake createrepo_c dnf-plugins-core gcc-c++ git-core gzip make procps-ng python3
    redhat-rpm-config rpm-build sudo tar util-linux which xz
)

install_packages() {
    attempt dnf -q -y --setopt=install_weak_deps=False --setopt=retries=10 install "${packages[@]}"
}

# shellcheck source=workers/templates/user_data-common.sh
. common.sh

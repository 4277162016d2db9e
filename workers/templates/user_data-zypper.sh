#!/bin/bash
# User data of a build machine with openSUSE or SLES.
# shellcheck disable=SC2034  # values.sh and common.sh use what is said here, and the other way round
set -euo pipefail

# shellcheck source=/dev/null
. values.sh

# The python3 of Leap 15 is 3.6, which buildbot-worker does not run on: python3.11 beside it does.
needs=(bzip2 cmake createrepo_c g++ git make ps python3 python3.11 rpmbuild rpmspec sudo tar xz zgrep)
packages=(
    bzip2 ca-certificates cmake createrepo_c gcc-c++ git-core gzip make procps python3 python311 rpm-build
    sudo tar util-linux which xz
)

install_packages() {
    export ZYPP_LOCK_TIMEOUT=300
    attempt zypper --quiet --non-interactive refresh
    attempt zypper --quiet --non-interactive install --no-recommends "${packages[@]}"
}

# shellcheck source=workers/templates/user_data-common.sh
. common.sh

#!/bin/bash
# User data of a build machine with Debian or Ubuntu.
# shellcheck disable=SC2034  # values.sh and common.sh use what is said here, and the other way round
set -euo pipefail

# shellcheck source=/dev/null
. values.sh

needs=(
    apt-ftparchive bzip2 cmake dch dh dh_python3 dpkg-buildpackage equivs-build fakeroot g++ git
    lsb_release make mk-build-deps pkg-config ps python3 sudo xz
)
packages=(
    apt-utils build-essential bzip2 ca-certificates cmake debhelper devscripts dh-python equivs fakeroot
    git libdistro-info-perl lsb-release pkg-config procps python3 python3-all python3-setuptools sudo
    xz-utils
)

install_packages() {
    export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
    local options=(-q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
    attempt apt-get "${options[@]}" update
    attempt apt-get "${options[@]}" --no-install-recommends install "${packages[@]}"
}

# shellcheck source=workers/templates/user_data-common.sh
. common.sh

#!/bin/bash
# User data of a build machine with CentOS Stream, Rocky, or another of that family.
# shellcheck disable=SC2034,SC2154  # values.sh and common.sh use what is set here, and the other way round
set -euo pipefail

# shellcheck source=/dev/null
. values.sh

install_packages() {
    attempt dnf -q -y --setopt=install_weak_deps=False --setopt=retries=10 install "${packages[@]}"
}

# shellcheck source=workers/templates/user_data-common.sh
. common.sh

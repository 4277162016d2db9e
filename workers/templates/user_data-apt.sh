#!/bin/bash
# User data of a build machine with Debian or Ubuntu.
# shellcheck disable=SC2034,SC2154  # values.sh and common.sh use what is set here, and the other way round
set -euo pipefail

# shellcheck source=/dev/null
. values.sh

install_packages() {
    export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
    local options=(-q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
    attempt apt-get "${options[@]}" update
    attempt apt-get "${options[@]}" --no-install-recommends install "${packages[@]}"
}

# shellcheck source=workers/templates/user_data-common.sh
. common.sh

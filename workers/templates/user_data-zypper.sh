#!/bin/bash
# User data of a build machine with openSUSE or SLES.
# shellcheck disable=SC2034,SC2154  # values.sh and common.sh use what is set here, and the other way round
set -euo pipefail

# shellcheck source=/dev/null
. values.sh

install_packages() {
    export ZYPP_LOCK_TIMEOUT=300
    attempt zypper --quiet --non-interactive refresh
    attempt zypper --quiet --non-interactive install --no-recommends "${packages[@]}"
}

# shellcheck source=workers/templates/user_data-common.sh
. common.sh

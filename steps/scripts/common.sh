# Sourced by every script. A script ends with a sentence that begins with FAILED:, which is what
# the user sees, or with exit status 0.
# shellcheck shell=bash
set -euo pipefail
export LC_ALL=C.UTF-8

fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}

#!/usr/bin/env bash
# Installs the build dependencies that debian/control lists, and leaves nothing in the tree.
set -euo pipefail

tree=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
as_root=(env DEBIAN_FRONTEND=noninteractive)
if [ "$(id -u)" -ne 0 ]; then
    as_root=(sudo "${as_root[@]}")
fi
tool='apt-get -y --no-install-recommends'

"${as_root[@]}" apt-get update
if ! command -v mk-build-deps >/dev/null || ! command -v equivs-build >/dev/null; then
    "${as_root[@]}" apt-get -y --no-install-recommends install devscripts equivs
fi

# mk-build-deps writes the package that it makes, and its .buildinfo, to the directory it is started in.
scratch=$(mktemp -d)
trap '"${as_root[@]}" rm -rf "$scratch"' EXIT
cd "$scratch"
"${as_root[@]}" mk-build-deps --install --remove --tool "$tool" "$tree/debian/control"

#!/usr/bin/env bash
# dependencies.sh PKG_TYPE: the build dependencies, by the project's own install-deps.sh if it has one.
. "$(dirname "$0")/common.sh"
cd src
sudo=
[ "$(id -u)" = 0 ] || sudo='sudo -n'
export DEBIAN_FRONTEND=noninteractive FOR_MAKE_CHECK=0
if [ -x install-deps.sh ]; then
    ./install-deps.sh </dev/null || fail "install-deps.sh ended with status $?"
elif [ "$1" = deb ]; then
    [ -f debian/control ] || fail "the commit has neither install-deps.sh nor debian/control"
    if ! dpkg-checkbuilddeps; then
        $sudo apt-get update
        $sudo mk-build-deps --install --remove --tool 'apt-get -y --no-install-recommends' debian/control
    fi
elif [ -n "${BUILDPACKAGES_STAND_IN:-}" ]; then
    echo "$BUILDPACKAGES_STAND_IN: it has what most builds need, and no rpms to install"
else
    for spec in *.spec *.spec.in; do
        [ -f "$spec" ] && $sudo dnf builddep -y "$spec"
    done
fi

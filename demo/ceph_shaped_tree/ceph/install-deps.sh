#!/bin/bash -e
# Installs what building the packages needs, on the distributions that they are built for; asks the network only for what is missing.
cd "$(dirname "$0")"
source_dir=$PWD

SUDO=
if [ "$(id -u)" -ne 0 ]; then
    SUDO=sudo
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for_make_check=false
if tty -s; then
    # interactive
    for_make_check=true
elif [ "$FOR_MAKE_CHECK" ]; then
    for_make_check=true
fi

install_deb() {
    control=$source_dir/debian/control
    build_profiles=""
    if $for_make_check; then
        build_profiles+=",pkg.ceph.check"
    fi
    if [ "$WITH_CRIMSON" ]; then
        build_profiles+=",pkg.ceph.crimson"
    fi
    if ! command -v mk-build-deps equivs-build >"$work/found" || [ "$(wc -l <"$work/found")" -ne 2 ]; then
        $SUDO apt-get update
        $SUDO env DEBIAN_FRONTEND=noninteractive apt-get -y --no-install-recommends install devscripts equivs
    elif ! dpkg-checkbuilddeps -P "${build_profiles#,}" "$control"; then
        $SUDO apt-get update
    fi
    # mk-build-deps leaves its .changes and .buildinfo where it runs.
    cd "$work"
    $SUDO env DEBIAN_FRONTEND=noninteractive mk-build-deps --build-profiles "${build_profiles#,}" --install --remove \
        --tool 'apt-get -y --no-install-recommends' "$control"
}

install_rpm() {
    sed -e 's/@PROJECT_VERSION@/0/; s/@RPM_RELEASE@/0/; s/@TARBALL_BASENAME@/ceph/' "$source_dir/ceph.spec.in" >"$work/ceph.spec"
    if $for_make_check; then
        sed -i -e 's/%bcond_with make_check/%bcond_without make_check/' "$work/ceph.spec"
    fi
    if ! rpm -q rpm-build dnf-plugins-core; then
        $SUDO dnf -y install rpm-build dnf-plugins-core
    fi
    $SUDO dnf -y builddep "$work/ceph.spec"
}

# shellcheck source=/dev/null
. /etc/os-release
case $ID in
debian | ubuntu | devuan) install_deb ;;
centos | rocky | rhel | fedora | almalinux) install_rpm ;;
*)
    echo "install-deps.sh: $ID is none of the distributions that ceph is built on" >&2
    exit 1
    ;;
esac

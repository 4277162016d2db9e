#!/usr/bin/env bash
# packages-deb.sh TARBALL VERSION CODENAME JOBS: the debs in out/deb/, in the way of Ceph's make-debs.sh.
. "$(dirname "$0")/common.sh"
tarball=$1 version=$2 codename=$3 jobs=$4
[ -f src/debian/control ] || fail "the commit has no debian/control, so it has no debs"
source=$(cd src && dpkg-parsechangelog -S Source)
mkdir -p out/deb
cd out/deb
mv "../../src/$tarball" "${source}_$version.orig.tar.${tarball##*.tar.}"
tar -xf "${source}_$version".orig.tar.*
cd "${tarball%.tar.*}"
rm -rf debian
cp -a ../../../src/debian .
export DEBEMAIL=packages@localhost DEBFULLNAME='Packages on demand'
dch -D "$codename" --force-distribution -b -v "$version-1" 'Built on demand.'
dpkg-buildpackage -j"$jobs" -uc -us 2>&1 || fail "dpkg-buildpackage ended with status $?"
mapfile -t expected < <(dh_listpackages)
cd ..
# An exit status is no proof: what debian/control names must be there, and every deb be whole.
shopt -s nullglob
missing=()
for package in "${expected[@]}"; do
    files=("${package}_"*.deb)
    [ ${#files[@]} = 1 ] || missing+=("$package")
done
[ ${#missing[@]} = 0 ] || fail "debian/control names ${missing[*]}, but the build made no such deb"
# shellcheck disable=SC2016
printf '%s\0' ./*.deb | xargs -0 -P "$jobs" -I{} bash -c \
    'dpkg-deb --fsys-tarfile "$1" >/dev/null || { echo "FAILED: $1 is corrupt or truncated" >&2; exit 255; }' _ {}
for deb in ./*.deb; do
    [ "$(dpkg-deb -f "$deb" Version)" = "$version-1" ] || fail "$deb is not of version $version-1"
done
printf 'packages=%s\n' "$(IFS=,; echo "${expected[*]}")"

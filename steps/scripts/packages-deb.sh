#!/usr/bin/env bash
# packages-deb.sh TARBALL VERSION CODENAME JOBS: builds debs as Ceph's make-debs.sh does.
#
# At its end out/deb/ holds what is published, and nothing else: the debs that the .changes lists, the
# .dsc, and the files that the .dsc lists.
. "$(dirname "$0")/common.sh"
. "$(dirname "$0")/network.sh"
tarball=$1 version=$2 codename=$3 jobs=$4
[ -f src/debian/control ] || fail "the commit has no debian/control, so it has no debs"
[ -f src/debian/changelog ] || fail "the commit has no debian/changelog, which names the source package"
source=$(dpkg-parsechangelog -l src/debian/changelog -S Source || true)
[ -n "$source" ] || fail "debian/changelog does not name the source package"
# As in make-debs.sh: two distributions have two versions of a release, and neither is older than Ceph's own.
deb_version=$version-1$codename
# The entry and the packages carry the commit's time, so that a second build makes the same bytes.
SOURCE_DATE_EPOCH=$(git -C src log -1 --format=%ct)
export SOURCE_DATE_EPOCH

mkdir -p out/build out/deb
mv "src/$tarball" "out/build/${source}_$version.orig.tar.${tarball##*.tar.}"
cd out/build
tar -xf "${source}_$version".orig.tar.*
cd "${tarball%.tar.*}"
rm -rf debian
cp -a ../../../src/debian .
{
    printf '%s (%s) %s; urgency=medium\n\n  * Built on demand.\n\n' "$source" "$deb_version" "$codename"
    printf ' -- Packages on demand <packages@localhost>  %s\n\n' "$(date -uRd "@$SOURCE_DATE_EPOCH")"
    cat ../../../src/debian/changelog
} >debian/changelog
# A native format takes no revision, and the version has one. The upstream tarball that quilt's wants is there.
! grep -qx '3\.0 (native)' debian/source/format 2>/dev/null || echo '3.0 (quilt)' >debian/source/format
# This check needs no compilation.
[ -n "$(dh_listpackages || true)" ] || fail "debian/control names no package for $(dpkg --print-architecture)"
dpkg-buildpackage -j"$jobs" -uc -us 2>&1 || fail "dpkg-buildpackage ended with status $?"
listed=$(dh_listpackages)
cd ..

# An exit status proves nothing: the .changes and the .dsc list the files that were built.
shopt -s nullglob
changes=(*.changes)
[ ${#changes[@]} = 1 ] || fail "dpkg-buildpackage ended well, but made ${#changes[@]} .changes files instead of one"
dscs=(*.dsc)
[ ${#dscs[@]} = 1 ] || fail "dpkg-buildpackage ended well, but made ${#dscs[@]} .dsc files instead of one"
files_of() {
    sed -n '/^Checksums-Sha256:/,/^[^ ]/s/^ [0-9a-f]\{64\} [0-9]* //p' "$1"
}
mapfile -t debs < <(files_of "${changes[0]}" | grep -E '\.(deb|ddeb|udeb)$')
mapfile -t sources < <(files_of "${dscs[0]}")
for file in "${debs[@]}" "${sources[@]}"; do
    [ -f "$file" ] || fail "dpkg-buildpackage ended well, but $file is not there"
done
[ ${#debs[@]} -gt 0 ] || fail "dpkg-buildpackage ended well, but made no deb"
# shellcheck disable=SC2016
damaged=$(printf '%s\0' "${debs[@]}" | xargs -0 -P "$jobs" -I{} bash -c 'dpkg-deb --fsys-tarfile "$1" >/dev/null || echo "${1#./}"' _ {})
[ -z "$damaged" ] || fail "${damaged//$'\n'/, } is corrupt or truncated"

# Every deb must come from this source package. Some debs may have their own version (dh_gencontrol -- -v), but not all.
# A .udeb is for installers and is not published.
declare -A version_of=() for_installers=()
published=()
for deb in "${debs[@]}"; do
    # shellcheck disable=SC2016
    read -r package own from from_version < <(dpkg-deb -W --showformat \
        '${Package} ${Version} ${source:Package} ${source:Version}\n' "$deb")
    [ "$from $from_version" = "$source $deb_version" ] ||
        fail "$deb is of the source package $from $from_version, not of $source $deb_version"
    if [[ $deb == *.udeb ]]; then
        for_installers[$package]=yes
    else
        version_of[$package]=$own
        published+=("$deb")
    fi
done
missing=() expected=() versions=() carried=
for package in $listed; do
    [ -z "${for_installers[$package]:-}" ] || continue
    own=${version_of[$package]:-}
    if [ -z "$own" ]; then
        missing+=("$package")
        continue
    fi
    expected+=("$package")
    versions+=("$package $own")
    [ "$own" != "$deb_version" ] || carried=yes
done
[ ${#missing[@]} = 0 ] || fail "debian/control names ${missing[*]}, but the build made no such deb"
[ -n "$carried" ] || fail "no package is of version $deb_version: $(IFS=,; echo "${versions[*]}")"
mv -t ../deb "${published[@]}" "${dscs[0]}" "${sources[@]}"
value packages "$(IFS=,; echo "${expected[*]}")"

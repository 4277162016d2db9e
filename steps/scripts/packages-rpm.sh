#!/usr/bin/env bash
# packages-rpm.sh TARBALL RPM_VERSION SPEC JOBS [OPTION...]: builds the rpms below out/rpmbuild/.
#
# SPEC is the spec's name without .spec; if it is empty, the commit's only spec is taken. The options go
# to rpmbuild, and to rpmspec as well, so that both see the same packages.
. "$(dirname "$0")/common.sh"
. "$(dirname "$0")/network.sh"
tarball=$1 rpm_version=$2 name=$3 jobs=$4
shift 4
options=("$@")
top=$PWD/out/rpmbuild
shopt -s nullglob
if [ -n "$name" ]; then
    specs=("src/$name.spec")
    [ -f "${specs[0]}" ] || fail "the commit has no $name.spec, nor did make-dist make one, so it has no rpms"
else
    specs=(src/*.spec)
    [ ${#specs[@]} -gt 0 ] || fail "the commit has no spec, nor did make-dist make one, so it has no rpms"
    [ ${#specs[@]} = 1 ] ||
        fail "the commit has ${#specs[@]} specs (${specs[*]#src/}); the project's settings must name one"
fi
mkdir -p "$top/SOURCES" "$top/SPECS"
spec=$top/SPECS/${specs[0]##*/}
cp "${specs[0]}" "$spec"

# Times come from the commit and the host's name is fixed, so that a second build makes the same bytes.
SOURCE_DATE_EPOCH=$(git -C src log -1 --format=%ct)
export SOURCE_DATE_EPOCH
define=(
    -D "_topdir $top" -D '_buildhost localhost' -D 'use_source_date_epoch_as_buildtime 1'
    -D 'clamp_mtime_to_source_date_epoch 1'
)
spec_options=()
for option in "${options[@]}"; do
    # rpmspec refuses options that concern only the build.
    [[ $option == --no@(deps|check|clean|prep) ]] || spec_options+=("$option")
done
query() {
    rpmspec -q "$1" --qf "$2" "${define[@]}" "${spec_options[@]}" "$spec"
}

if [ -x src/make-dist ]; then
    mv "src/$tarball" "$top/SOURCES/"
else
    # A person wrote this spec. Like Ceph's own builds of such projects, give it git's version, and the source archive
    # that it names.
    # rpm reads `#%define NAME` as well, and refuses it because the macro has no body; tcmu-runner's spec has one.
    sed -Ei 's/^(#[# ]*)(%(define|global)\s+\w+\s*)$/\1%\2/' "$spec"
    sed -i -e "0,/^Version:.*/I{s//Version: ${rpm_version%%-*}/}" \
        -e "0,/^Release:.*/I{s//Release: ${rpm_version#*-}%{?dist}/}" "$spec"
    sources=$(query --srpm '[%{SOURCE}\n]') || fail "rpmspec cannot read ${spec##*/}"
    prefix=$(query --srpm '%{NAME}-%{VERSION}')
    source=$(grep -m1 -F "$prefix" <<<"$sources") || fail "${spec##*/} has no source named after $prefix"
    git -C src -c tar.tar.bz2.command='bzip2 -c' -c tar.tar.xz.command='xz -c' \
        archive --prefix="$prefix/" -o "$top/SOURCES/$source" HEAD || fail "git archive ended with status $?"
    while read -r other; do
        [ "$other" = "$source" ] || ! [ -f "src/$other" ] || cp "src/$other" "$top/SOURCES/"
    done <<<"$sources"
fi
find "$top/SOURCES" "$spec" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

# Before anything is compiled: get the names, and check that the version is the commit's.
nvr='%{NAME} %{VERSION}-%{RELEASE}\n'
source_nvr=$(query --srpm "$nvr") || fail "rpmspec cannot read ${spec##*/}"
[[ ${source_nvr#* } == *"$rpm_version"* ]] ||
    fail "${spec##*/} is of version ${source_nvr#* }, which does not hold $rpm_version"
# The debuginfo and debugsource packages are named whether or not the build has anything to put in them.
named=$(query --builtrpms "$nvr") || fail "rpmspec cannot read ${spec##*/}"
mapfile -t named < <(grep -vE '^[^ ]*-debug(info|source) ' <<<"$named" | sort -u)
[ -n "${named[*]}" ] || fail "${spec##*/} builds no package"
expected=("${named[@]%% *}") carried=
for package in "${named[@]}"; do
    [[ ${package#* } != *"$rpm_version"* ]] || carried=yes
done
[ -n "$carried" ] || fail "no package of ${spec##*/} is of version $rpm_version: $(IFS=,; echo "${named[*]}")"

RPM_BUILD_NCPUS=$jobs rpmbuild -ba "${define[@]}" "${options[@]}" "$spec" 2>&1 ||
    fail "rpmbuild ended with status $?"

# An exit status proves nothing: every package of the spec must be there, from the one source rpm, and intact.
mapfile -t rpms < <(find "$top" -path "$top/RPMS/*.rpm")
mapfile -t source_rpms < <(find "$top" -path "$top/SRPMS/*.src.rpm")
[ ${#rpms[@]} -gt 0 ] || fail "rpmbuild ended well, but made no rpm"
[ ${#source_rpms[@]} = 1 ] || fail "rpmbuild ended well, but made ${#source_rpms[@]} source rpms instead of one"
rpm -K --nosignature "${rpms[@]}" "${source_rpms[@]}" || fail "an rpm is corrupt or truncated; the log names it"
# Not of the source rpm, which has the name of the main package.
built=$(rpm -qp --nosignature --qf '%{NAME}\n' "${rpms[@]}")
missing=()
for package in "${expected[@]}"; do
    grep -qxF "$package" <<<"$built" || missing+=("$package")
done
[ ${#missing[@]} = 0 ] || fail "the spec names ${missing[*]}, but the build made no such rpm"
while read -r package from; do
    [ "$from" = "${source_rpms[0]##*/}" ] ||
        fail "the rpm $package is of the source rpm $from, not of ${source_rpms[0]##*/}"
done < <(rpm -qp --nosignature --qf '%{NAME} %{SOURCERPM}\n' "${rpms[@]}")
value packages "$(IFS=,; echo "${expected[*]}")"

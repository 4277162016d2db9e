#!/usr/bin/env bash
# packages-rpm.sh TARBALL RPM_VERSION PROJECT JOBS [RPMBUILD_OPTION...]: the rpms below out/rpmbuild/.
. "$(dirname "$0")/common.sh"
tarball=$1 rpm_version=$2 project=$3 jobs=$4
shift 4
spec=src/$project.spec
[ -f "$spec" ] || fail "the commit has no $project.spec, nor did make-dist make one, so it has no rpms"
top=$PWD/out/rpmbuild
mkdir -p "$top/SOURCES" "$top/SPECS"
mv "src/$tarball" "$top/SOURCES/"
cp "$spec" "$top/SPECS/"
define=(-D "_topdir $top")
RPM_BUILD_NCPUS=$jobs rpmbuild -ba "${define[@]}" "$@" "$top/SPECS/$project.spec" 2>&1 ||
    fail "rpmbuild ended with status $?"
mapfile -t expected < <(rpmspec -q --builtrpms --qf '%{NAME}\n' "${define[@]}" "$top/SPECS/$project.spec" | sort -u)
[ ${#expected[@]} -gt 0 ] || fail "the spec builds no package"
# An exit status is no proof: what the spec names must be there, and every rpm be whole.
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
while read -r nvr; do
    [[ $nvr == *"$rpm_version"* ]] || fail "an rpm is of version $nvr, which does not hold $rpm_version"
done < <(rpm -qp --nosignature --qf '%{VERSION}-%{RELEASE}\n' "${rpms[@]}" "${source_rpms[@]}")
printf 'packages=%s\n' "$(IFS=,; echo "${expected[*]}")"

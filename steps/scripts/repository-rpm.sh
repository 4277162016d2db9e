#!/usr/bin/env bash
# repository-rpm.sh PROJECT DIST_RELEASE ARCH BASE_URL KEY_URL: yum repositories in out/repo/, unsigned,
# and the rpm that points at them.
. "$(dirname "$0")/common.sh"
project=$1 dist_release=$2 arch=$3 base_url=$4 key_url=$5
top=$PWD/out/rpmbuild
# The text of the .repo file has "enabled=1" and "gpgcheck" side by side: teuthology puts priority=1 there.
for part in "Ceph \$basearch" "Ceph-noarch noarch" "ceph-source SRPMS"; do
    read -r section directory <<<"$part"
    cat <<END
[$section]
name=$section packages on demand
baseurl=$base_url/$directory
enabled=1
gpgcheck=0
repo_gpgcheck=1
gpgkey=$key_url
type=rpm-md

END
done >"$top/SOURCES/$project.repo"
cat >"$top/SPECS/$project-release.spec" <<END
Name: $project-release
Version: 1
Release: 0.$dist_release
Summary: Repository of $project packages built on demand
License: LGPL-2.1-only
BuildArch: noarch
Source0: $project.repo
%description
Points dnf and yum at packages that were built on demand for one commit.
%install
install -D -m 644 %{SOURCE0} %{buildroot}/etc/yum.repos.d/$project.repo
%files
%config /etc/yum.repos.d/$project.repo
END
rpmbuild -bb -D "_topdir $top" "$top/SPECS/$project-release.spec" || fail "the rpm of the repository cannot be built"
mkdir -p out/repo/SRPMS out/repo/noarch "out/repo/$arch"
shopt -s nullglob
mv "$top"/SRPMS/*.src.rpm out/repo/SRPMS/
for part in noarch "$arch"; do
    rpms=("$top/RPMS/$part"/*.rpm)
    [ ${#rpms[@]} = 0 ] || mv "${rpms[@]}" "out/repo/$part/"
done
cd out/repo
[ -f "noarch/$project-release-1-0.$dist_release.noarch.rpm" ] || fail "the rpm of the repository is not where it must be"
for part in SRPMS noarch "$arch"; do
    # No database: its size field overflows on rpms of more than 2 GiB.
    createrepo_c --quiet --no-database --simple-md-filenames --general-compress-type gz "$part" || fail "createrepo_c ended with status $? in $part"
    indexed=$(zgrep -o '<package type="rpm">' "$part/repodata/primary.xml.gz" | wc -l)
    files=("$part"/*.rpm)
    [ "$indexed" = ${#files[@]} ] || fail "createrepo_c indexed $indexed of ${#files[@]} rpms in $part"
done

#!/usr/bin/env bash
# repository-deb.sh CODENAME DEB_ARCH: an apt repository in out/repo/, unsigned.
. "$(dirname "$0")/common.sh"
codename=$1 arch=$2
source=$(dpkg-parsechangelog -l src/debian/changelog -S Source)
pool=pool/main/${source:0:1}/$source
mkdir -p "out/repo/$pool" "out/repo/dists/$codename/main/binary-$arch" "out/repo/dists/$codename/main/source"
shopt -s nullglob
debs=(out/deb/*.deb)
dscs=(out/deb/*.dsc)
mv out/deb/* "out/repo/$pool/"
cd out/repo
binary=dists/$codename/main/binary-$arch
apt-ftparchive --arch "$arch" packages pool >"$binary/Packages" || fail "apt-ftparchive packages ended with status $?"
apt-ftparchive sources pool >"dists/$codename/main/source/Sources" || fail "apt-ftparchive sources ended with status $?"
indexed=$(grep -c '^Package: ' "$binary/Packages" || true)
[ "$indexed" = ${#debs[@]} ] || fail "apt-ftparchive indexed $indexed of ${#debs[@]} debs"
indexed=$(grep -c '^Package: ' "dists/$codename/main/source/Sources" || true)
[ "$indexed" = ${#dscs[@]} ] || fail "apt-ftparchive indexed $indexed of ${#dscs[@]} source packages"
gzip -9nk "$binary/Packages" "dists/$codename/main/source/Sources"
apt-ftparchive -o APT::FTPArchive::Release::Origin=Ceph \
    -o APT::FTPArchive::Release::Label='Ceph on demand' \
    -o "APT::FTPArchive::Release::Suite=$codename" \
    -o "APT::FTPArchive::Release::Codename=$codename" \
    -o "APT::FTPArchive::Release::Architectures=$arch" \
    -o APT::FTPArchive::Release::Components=main \
    release "dists/$codename" >Release || fail "apt-ftparchive release ended with status $?"
mv Release "dists/$codename/"

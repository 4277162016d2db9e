#!/usr/bin/env bash
# image-mirror.sh: what git fetched for src/, as a bare repository for the checkouts of later builds.
#
# It has all commits and tags, and the trees and files of one commit: what a checkout begins with. The
# submodules are in modules/. Nothing is fetched for it.
. "$(dirname "$0")/common.sh"
mirror=${BUILDPACKAGES_MIRROR:-/var/lib/buildpackages/mirror.git}
sudo=
[ "$(id -u)" = 0 ] || sudo='sudo -n'
[ -d src/.git ] || fail "there is no checkout to make the mirror of"
# What is offered to a server as known already are refs: HEAD is none.
git -C src update-ref refs/heads/mirrored HEAD
git -C src pack-refs --all
$sudo rm -rf "$mirror"
$sudo mkdir -p "$mirror"
for part in objects modules shallow; do
    [ ! -e "src/.git/$part" ] || $sudo mv "src/.git/$part" "$mirror/"
done
$sudo mv src/.git/packed-refs "$mirror/"
# A configuration of its own: the checkout's names servers, and hooks of its would run in later builds.
printf 'ref: refs/heads/mirrored\n' | $sudo tee "$mirror/HEAD" >/dev/null
printf '[core]\n\trepositoryformatversion = 0\n\tbare = true\n' | $sudo tee "$mirror/config" >/dev/null
$sudo mkdir -p "$mirror/refs"
if [ -d "$mirror/modules" ]; then
    # An index would say that files are there which a later build has not checked out yet.
    $sudo find "$mirror/modules" \( -name index -o -name ORIG_HEAD -o -name FETCH_HEAD -o -name '*.lock' \) -type f -delete
    $sudo find "$mirror/modules" -type d \( -name hooks -o -name logs \) -prune -exec rm -rf {} +
fi
$sudo chown -R "$(id -un):" "$mirror"
git --git-dir="$mirror" rev-parse --verify --quiet 'refs/heads/mirrored^{commit}' >/dev/null ||
    fail "the mirror does not hold the commit that was checked out"
rm -rf src
value mirror "$(du -sh "$mirror" | cut -f1)"

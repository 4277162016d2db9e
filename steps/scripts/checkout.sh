#!/usr/bin/env bash
# checkout.sh GIT_URL SHA1 CANONICAL_URL: src/ at exactly SHA1, with the canonical tags.
#
# History is filtered (tree:0: all commits, no old trees or files), never cut: git describe counts
# commits, and a shallow clone makes it count wrongly.
. "$(dirname "$0")/common.sh"
git_url=$1 sha1=$2 canonical_url=$3
mirror=${BUILDPACKAGES_MIRROR:-/var/lib/buildpackages/mirror.git}
export GIT_TERMINAL_PROMPT=0 GIT_ALLOW_PROTOCOL=https:http:git GIT_CONFIG_NOSYSTEM=1

git init --quiet src
cd src
if [ -d "$mirror/objects" ]; then
    # A prepared image has what a checkout before this one has fetched.
    printf '%s\n' "$mirror/objects" >.git/objects/info/alternates
    [ ! -d "$mirror/modules" ] || cp -al "$mirror/modules" .git/ 2>/dev/null || { rm -rf .git/modules && cp -a "$mirror/modules" .git/; }
fi
promisor() {
    git remote add "$1" "$2"
    git config "remote.$1.promisor" true
    git config "remote.$1.partialclonefilter" tree:0
}
fetch() {
    git -c protocol.version=2 fetch --no-tags --no-recurse-submodules --filter=tree:0 "$@"
}
tags='+refs/tags/v*:refs/tags/v*'
promisor origin "$git_url"
if [ "$git_url" = "$canonical_url" ]; then
    fetch origin "$sha1" "$tags" || fail "$git_url has no commit $sha1, or cannot be reached"
else
    fetch origin "$sha1" || fail "$git_url has no commit $sha1, or cannot be reached"
    promisor canonical "$canonical_url"
    fetch canonical "$tags" || fail "the tags of $canonical_url cannot be fetched"
fi
git -c advice.detachedHead=false checkout --quiet --detach "$sha1" ||
    fail "the files of $sha1 cannot be fetched from $git_url"
submodules() {
    git submodule update --init --recursive --depth 1 --jobs 4
}
anew() {
    # The mirror's submodules are of the servers that they had then.
    [ -d "$mirror/modules" ] && git submodule deinit --quiet --force --all && rm -rf .git/modules && submodules
}
if [ -f .gitmodules ]; then
    submodules || anew || fail "the submodules of $sha1 cannot be fetched"
fi
head=$(git rev-parse HEAD)
[ "$head" = "$sha1" ] || fail "HEAD is $head, not $sha1 as asked for"
git --no-pager log -1 --format='%H %ci%n%an: %s'

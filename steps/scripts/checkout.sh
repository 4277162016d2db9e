#!/usr/bin/env bash
# checkout.sh GIT_URL SHA1 CANONICAL_URL: src/ at exactly SHA1, with the canonical tags.
#
# History is filtered (tree:0: all commits, no old trees or files), never cut: git describe counts
# commits, and a shallow clone makes it count wrongly.
. "$(dirname "$0")/common.sh"
git_url=$1 sha1=$2 canonical_url=$3
export GIT_TERMINAL_PROMPT=0 GIT_ALLOW_PROTOCOL=https:http:git GIT_CONFIG_NOSYSTEM=1

git init --quiet src
cd src
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
if [ -f .gitmodules ]; then
    git submodule update --init --recursive --depth 1 --jobs 4 ||
        fail "the submodules of $sha1 cannot be fetched"
fi
head=$(git rev-parse HEAD)
[ "$head" = "$sha1" ] || fail "HEAD is $head, not $sha1 as asked for"
git --no-pager log -1 --format='%H %ci%n%an: %s'

#!/usr/bin/env bash
# version.sh CANONICAL_URL: prints version=X or X-N-gH, as git describe says it.
. "$(dirname "$0")/common.sh"
cd src
described=$(git describe --abbrev=8 --match 'v*' HEAD) ||
    fail "no tag v* of $1 is an ancestor of the commit, so it has no version"
version=${described#v}
pattern='^[0-9]+(\.[0-9A-Za-z~+]+)*(-[0-9]+-g[0-9a-f]{8,40})?$'
[[ $version =~ $pattern ]] || fail "git describe says $described, which is no version"
printf 'version=%s\n' "$version"

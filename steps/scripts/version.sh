#!/usr/bin/env bash
# version.sh CANONICAL_URL [TAG_PATTERN]: reports version: X or X-N-gH, as git describe says it.
#
# Only a tag that is a version counts: one that, without a leading v, make-dist, dpkg and rpm all accept.
# Other tags, such as vstart-demo or v19.2.1-rc1, are ignored. Annotated tags decide, as for Ceph. Tags without a
# tagger count only if there are no annotated ones, because some projects have no others.
. "$(dirname "$0")/common.sh"
canonical_url=$1 tag_pattern=${2:-v*}
cd src
tag_is_version='^v?[0-9]+(\.[0-9A-Za-z~+]+)*$'
passed_over=() exclude=()
while read -r tag; do
    # shellcheck disable=SC2053
    if [[ $tag == $tag_pattern && ! $tag =~ $tag_is_version ]]; then
        passed_over+=("$tag")
        exclude+=(--exclude "$tag")
    fi
done < <(git for-each-ref --merged=HEAD --sort=-creatordate --format='%(refname:lstrip=2)' refs/tags)
names=${passed_over[*]:0:20}
[ -z "$names" ] || printf '%s tags are no versions and were passed over: %s\n' "${#passed_over[@]}" "$names"
describe() {
    git describe --abbrev=8 --match "$tag_pattern" "${exclude[@]}" "$@" HEAD
}
described=$(describe || describe --tags) || fail "no tag $tag_pattern of $canonical_url${names:+ that is a version}" \
    "is an ancestor of the commit, so it has no version${names:+; $names are none}"
version=${described#v}
# git lengthens an abbreviation that several objects have, so that one commit could get two versions.
[[ ! $version =~ ^(.+-[0-9]+-g)[0-9a-f]{8,40}$ ]] || version=${BASH_REMATCH[1]}$(git rev-parse HEAD | cut -c 1-8)
pattern='^[0-9]+(\.[0-9A-Za-z~+]+)*(-[0-9]+-g[0-9a-f]{8})?$'
[[ $version =~ $pattern ]] || fail "git describe says $described, which is no version"
value version "$version"

#!/usr/bin/env bash
# tarball.sh PROJECT VERSION: src/PROJECT-VERSION.tar.*, by the project's own make-dist if it has one.
. "$(dirname "$0")/common.sh"
project=$1 version=$2
cd src
if [ -x make-dist ]; then
    ./make-dist "$version" || fail "make-dist ended with status $?"
else
    git archive --prefix="$project-$version/" -o "$project-$version.tar.gz" HEAD
fi
# make-dist exits 0 when its downloads fail, so its word is not taken for it.
shopt -s nullglob
found=("$project-$version".tar.*)
[ ${#found[@]} = 1 ] ||
    fail "make-dist ended well, but left ${#found[@]} files $project-$version.tar.* instead of one"
listing=$(tar -tf "${found[0]}") || fail "${found[0]} is not a whole tarball"
stray=$(grep -vm1 "^$project-$version/" <<<"$listing" || true)
[ -z "$stray" ] || fail "${found[0]} holds $stray, outside $project-$version/"
value tarball "${found[0]}"
printf '%s: %s files, %s bytes\n' "${found[0]}" "$(wc -l <<<"$listing")" "$(stat -c %s "${found[0]}")"

#!/usr/bin/env bash
# tarball.sh PROJECT VERSION: src/PROJECT-VERSION.tar.*, by the project's own make-dist if it has one.
. "$(dirname "$0")/common.sh"
. "$(dirname "$0")/network.sh"
project=$1 version=$2
cd src
# Tools that know this variable write the commit's time, so that a second build makes the same bytes.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
if [ -x make-dist ]; then
    ./make-dist "$version" || fail "make-dist ended with status $?"
else
    git archive --prefix="$project-$version/" -o "$project-$version.tar.gz" HEAD
fi
# Ceph's make-dist ends with status 0 even if a download fails. The step finds the cause in the log.
shopt -s nullglob
found=("$project-$version".tar.*)
[ ${#found[@]} = 1 ] ||
    fail "make-dist ended well, but left ${#found[@]} files $project-$version.tar.* instead of one"
listing=$(tar -tf "${found[0]}") || fail "${found[0]} is not a whole tarball"
stray=$(grep -vm1 "^$project-$version/" <<<"$listing" || true)
[ -z "$stray" ] || fail "${found[0]} holds $stray, outside $project-$version/"
value tarball "${found[0]}"
printf '%s: %s files, %s bytes\n' "${found[0]}" "$(wc -l <<<"$listing")" "$(stat -c %s "${found[0]}")"

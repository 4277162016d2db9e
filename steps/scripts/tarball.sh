#!/usr/bin/env bash
# tarball.sh PROJECT VERSION: src/PROJECT-VERSION.tar.*, by the project's own make-dist if it has one.
. "$(dirname "$0")/common.sh"
. "$(dirname "$0")/network.sh"
project=$1 version=$2
log=$(mktemp)
remove_at_end "$log"
cd src
# Tools that know it put the commit's time into what they make, so that a second build makes the same bytes.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
if [ -x make-dist ]; then
    ./make-dist "$version" 2>&1 | tee "$log" || fail "make-dist ended with status $?"
else
    git archive --prefix="$project-$version/" -o "$project-$version.tar.gz" HEAD
fi
# Ceph's make-dist ends with status 0 when a download fails, so its status is no proof.
shopt -s nullglob
found=("$project-$version".tar.*)
if [ ${#found[@]} = 0 ]; then
    # A command that is not there is the reason of what fails after it.
    error=$(grep -E 'command not found$|: not found$|No such file or directory$' "$log" | tail -n 1 || true)
    error=${error:-$(grep -iE '\b(failed|failure|error|cannot|unable)\b' "$log" | tail -n 1 || true)}
    [ -z "$error" ] || fail "make-dist failed, though with status 0: $error"
fi
[ ${#found[@]} = 1 ] ||
    fail "make-dist ended well, but left ${#found[@]} files $project-$version.tar.* instead of one"
listing=$(tar -tf "${found[0]}") || fail "${found[0]} is not a whole tarball"
stray=$(grep -vm1 "^$project-$version/" <<<"$listing" || true)
[ -z "$stray" ] || fail "${found[0]} holds $stray, outside $project-$version/"
value tarball "${found[0]}"
printf '%s: %s files, %s bytes\n' "${found[0]}" "$(wc -l <<<"$listing")" "$(stat -c %s "${found[0]}")"

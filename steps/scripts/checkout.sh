#!/usr/bin/env bash
# checkout.sh GIT_URL SHA1 CANONICAL_URL [TAG_PATTERN]: src/ at exactly SHA1, with the canonical tags.
#
# History is filtered (tree:0: all commits, no old trees or files), never cut: git describe counts
# commits, and a shallow clone makes it count wrongly.
#
# The canonical repository is `origin`, and the finished checkout names no fork. Relative URLs of submodules therefore
# lead to the canonical neighbours; the fork's are the second choice. Every call over the network has a limit.
. "$(dirname "$0")/common.sh"
. "$(dirname "$0")/network.sh"
git_url=$1 sha1=$2 canonical_url=$3 tag_pattern=${4:-v*}
mirror=${BUILDPACKAGES_MIRROR:-/var/lib/buildpackages/mirror.git}
export GIT_ALLOW_PROTOCOL=https:http:git GIT_CONFIG_NOSYSTEM=1
logs=$(mktemp -d)
remove_at_end "$logs"

# network LOG ARGUMENT...: runs git within the limits, and keeps its messages.
network() {
    local status=0
    watched timeout --kill-after=10 "$limit" git -c protocol.version=2 -c credential.helper= "${@:2}" 2>&1 |
        tee "$1" || status=$?
    [ "$status" != 124 ] || printf '\nfatal: it took longer than %s s\n' "$limit" | tee -a "$1"
    return "$status"
}

# watched COMMAND...: runs it with an end to its standing still. git itself has a limit of silence for HTTP only.
watched() {
    local pid watcher status=0
    "$@" &
    pid=$!
    end_if_still "$pid" &
    watcher=$!
    wait "$pid" || status=$?
    kill "$watcher" 2>/dev/null || true
    wait "$watcher" 2>/dev/null || true
    return "$status"
}

# end_if_still GROUP: ends a process group that reads and writes no byte for git_silence seconds.
#
# Messages do not tell: git fetches what a checkout lacks without any. A server that computes sends a byte every few
# seconds, which git reads and does not show.
end_if_still() {
    local before='' now still=0 look=$((1 + git_silence / 60))
    # The look more lets git's own limit come first, which has a reason.
    until [ "$still" -gt $((git_silence + look)) ]; do
        read -rt "$look" -u "$never" || true
        now=$(pgrep -g "$1" | sed 's,.*,/proc/&/io,' | xargs -r grep -s '^[rw]char') || true
        if [ -n "$now" ] && [ "$now" = "$before" ]; then still=$((still + look)); else still=0; fi
        before=$now
    done
    printf '\nfatal: the server sent nothing for %s s\n' "$git_silence"
    kill "$1"
}
# Never readable: `read` waits for it without a process that would be left behind.
exec {never}<> <(:)

# why LOG: prints the first error in it; later ones are consequences.
why() {
    local line
    line=$(grep -m1 -E '^(fatal|error): ' "$1" || tail -n 1 "$1")
    case $line in
    *'could not read Username'* | *'could not read Password'* | *'Authentication failed'*)
        line='it asks for a user and a password, as GitHub does for a repository that is not there' ;;
    *'not our ref'*) line='it has no such commit' ;;
    *'Operation too slow'*) line="the server sent nothing for $git_silence s" ;;
    esac
    line=${line#fatal: }
    printf '%s' "${line#error: }"
}

# There is one if the checkout of another repository has failed.
rm -rf src
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
    network "$logs/fetch" fetch --progress --no-tags --no-recurse-submodules --filter=tree:0 "$@"
}
no_commit() {
    local reason
    reason=$(why "$logs/fetch")
    case $reason in
    'it has no such commit') fail "$git_url has no commit $sha1" ;;
    'the server sent nothing'* | 'it took longer'*) reason+='. Request again, or name another repository that has the commit' ;;
    esac
    fail "$git_url cannot be fetched from: $reason"
}
tags="+refs/tags/${tag_pattern%%[*?[]*}*:refs/tags/${tag_pattern%%[*?[]*}*"
# What the canonical repository has is not fetched from a fork: the fork could withhold it from those who wait for this build.
promisor origin "$canonical_url"
if ! fetch origin "$sha1" "$tags"; then
    [ "$git_url" != "$canonical_url" ] || no_commit
    # git asks the first promisor remote first for a missing file.
    git remote remove origin
    promisor fork "$git_url"
    fetch fork "$sha1" || no_commit
    promisor origin "$canonical_url"
    fetch origin "$tags" || fail "the tags of $canonical_url cannot be fetched: $(why "$logs/fetch")"
fi
network "$logs/checkout" -c advice.detachedHead=false checkout --quiet --detach "$sha1" ||
    fail "the files of $sha1 cannot be fetched from $git_url: $(why "$logs/checkout")"
git remote remove fork 2>/dev/null || true
rm -f .git/FETCH_HEAD

# neighbour BASE URL: a URL of .gitmodules, which may be relative to its repository's.
neighbour() {
    local base=${1%/} url=$2
    case $url in ./* | ../*) ;; *) base='' ;; esac
    while :; do
        case $url in
        ../*) base=${base%/*} url=${url#../} ;;
        ./*) url=${url#./} ;;
        *) break ;;
        esac
    done
    printf '%s' "${base:+$base/}$url"
}

# submodules PREFIX FORK: fetches and checks out those of the work tree that is the current directory.
submodules() {
    local modules commit path key value name url
    local -A name_of=()
    [ -f .gitmodules ] || return 0
    modules=$(git rev-parse --absolute-git-dir)/modules
    while IFS=$'\n' read -r -d '' key value; do
        key=${key#submodule.}
        name_of[$value]=${key%.path}
    done < <(git config -z -f .gitmodules --get-regexp '^submodule\..*\.path$')
    while IFS=$' \t' read -r -d '' _ commit _ path; do
        name=${name_of[$path]:-}
        [ -z "$name" ] || git submodule --quiet init -- "$path"
        url=$(git config "submodule.$name.url" || true)
        if [ -z "$url" ]; then
            printf '%s (no URL in .gitmodules)\n' "$1$path" >>"$logs/missing"
        elif [ "$(git config "submodule.$name.update" || true)" != none ]; then
            value=$(git config -f .gitmodules "submodule.$name.url")
            while [ "$(jobs -rp | wc -l)" -ge 4 ]; do wait -n || true; done
            submodule "$1$path" "$path" "$modules/$name" "$commit" "$url" "$(neighbour "$2" "$value")" &
        fi
    done < <(git ls-files --stage -z | grep -z '^160000 ')
    wait
}

# submodule SHOWN PATH MODULE COMMIT URL FORK: one of them, and its own.
submodule() {
    local shown=$1 path=$2 module=$3 commit=$4 url=$5 fork=$6 from reasons='' log
    log=$(mktemp -p "$logs")
    if [ ! -d "$module" ]; then
        git init --quiet --bare "$module"
        git --git-dir="$module" config core.bare false
    fi
    git --git-dir="$module" config remote.origin.url "$url"
    git --git-dir="$module" config remote.origin.fetch '+refs/heads/*:refs/remotes/origin/*'
    # By its sha1, because there may be no branch with the commit. Some servers know branches only, or no depth.
    for from in "$url" "$fork"; do
        ! git --git-dir="$module" cat-file -e "$commit^{tree}" 2>/dev/null || break
        [[ -z $reasons || $from != "$url" ]] || continue
        network "$log" --git-dir="$module" fetch --no-tags --depth 1 -- "$from" "$commit" ||
            { grep -qE 'unadvertised|shallow|dumb' "$log" && network "$log" --git-dir="$module" fetch --no-tags \
                -- "$from" '+refs/heads/*:refs/remotes/origin/*' '+refs/tags/*:refs/tags/*'; } ||
            reasons+=", $from: $(why "$log")"
    done
    rm -f "$module/FETCH_HEAD"
    # git describe and export-subst print refs, so the server's must not get into the packages.
    git --git-dir="$module" for-each-ref --format='delete %(refname)' | git --git-dir="$module" update-ref --no-deref --stdin
    if ! git --git-dir="$module" cat-file -e "$commit^{tree}" 2>/dev/null; then
        printf '%s (%s)\n' "$shown" "${reasons#, }" >>"$logs/missing"
    elif ! git submodule --quiet update --no-fetch --checkout -- "$path"; then
        printf '%s (%s cannot be checked out)\n' "$shown" "$commit" >>"$logs/missing"
    else
        (cd "$path" && submodules "$shown/" "$fork")
    fi
}
submodules '' "$git_url"
if [ -s "$logs/missing" ]; then
    fail "submodules cannot be fetched: $(sort "$logs/missing" | paste -sd ';' | sed 's/;/; /g')"
fi
! git submodule status --recursive | grep '^[+U]' || fail "submodules are not at the commits that $sha1 names"
head=$(git rev-parse HEAD)
[ "$head" = "$sha1" ] || fail "HEAD is $head, not $sha1 as asked for"
git --no-pager log -1 --format='%H %ci%n%an: %s'

#!/usr/bin/env bash
# dependencies.sh PKG_TYPE [MACRO...]: installs the build dependencies, by the project's own install-deps.sh if it has one.
#
# Each MACRO, "NAME BODY", is defined where dnf reads the spec, because BuildRequires may depend on it.
. "$(dirname "$0")/common.sh"
. "$(dirname "$0")/network.sh"
pkg_type=$1
shift
macros=()
for macro in "$@"; do macros+=(--define "$macro"); done
work=$(mktemp -d)
remove_at_end "$work"
cd src
# Ceph's install-deps.sh also installs what `make check` needs if it runs on a terminal or FOR_MAKE_CHECK is
# set. In its older versions any value means yes, and 0 is one.
unset FOR_MAKE_CHECK
export DEBIAN_FRONTEND=noninteractive
# sudo does not pass the environment on. It becomes root, so only root can stop it: `timeout` runs below it.
as_root=()
[ "$(id -u)" = 0 ] ||
    as_root=(sudo -n env "DEBIAN_FRONTEND=$DEBIAN_FRONTEND" "DEB_BUILD_PROFILES=${DEB_BUILD_PROFILES:-}")

# The command's output goes to a file, and `tail` shows it until the command ends. A pipe would be open for as long
# as any process that the command leaves in the background.
run() {
    local shown command
    touch "$work/log"
    shown=$(stat -c %s "$work/log")
    "$@" </dev/null >>"$work/log" 2>&1 &
    command=$!
    tail --pid="$command" --sleep-interval=0.2 --follow --bytes="+$((shown + 1))" "$work/log"
    wait "$command"
}

# lacking: prints the packages that apt or dnf could not install, by their messages.
lacking() {
    sed -nE \
        -e 's/^ .*Depends: (.*) but .*$/\1/p' \
        -e 's/^E: Unable to locate package (.*)$/\1/p' \
        -e "s/^E: Package '(.*)' has no installation candidate$/\1/p" \
        -e "s/^(No matching package to install|No match for argument): '?([^']*)'?$/\2/p" \
        -e 's/^.*nothing provides (.*) needed by .*$/\1/p' "$work/log" | sort -u | paste -sd ',' | sed 's/,/, /g'
}

# not_installed COMMAND STATUS: fails with the packages.
not_installed() {
    local names
    names=$(lacking)
    if [ -z "$names" ] && [ "$pkg_type" = deb ] && [ -f debian/control ]; then
        # mk-build-deps lets apt remove its package again, without giving the reason.
        run apt-get --simulate build-dep ./ || names=$(lacking)
    fi
    [ -z "$names" ] || fail "$1 cannot install $names"
    fail "$1 ended with status $2"
}

if [ -x install-deps.sh ]; then
    run ./install-deps.sh || not_installed install-deps.sh "$?"
elif [ "$pkg_type" = deb ]; then
    [ -f debian/control ] || fail "the commit has neither install-deps.sh nor debian/control"
    # Packages that are still to be installed are no error yet.
    if ! dpkg-checkbuilddeps >"$work/unmet" 2>&1; then
        sed 's/^dpkg-checkbuilddeps: error: Unmet/to be installed:/' "$work/unmet"
        run "${as_root[@]}" timeout "$limit" apt-get update || not_installed 'apt-get update' "$?"
        run "${as_root[@]}" timeout "$limit" apt-get -y --no-install-recommends build-dep ./ ||
            not_installed 'apt-get build-dep' "$?"
    fi
elif [ -n "${BUILDPACKAGES_STAND_IN:-}" ]; then
    echo "$BUILDPACKAGES_STAND_IN: it has what most builds need, and no rpms to install"
else
    shopt -s nullglob
    specs=(*.spec *.spec.in)
    [ ${#specs[@]} -gt 0 ] || fail "the commit has neither install-deps.sh nor a spec"
    for spec in "${specs[@]}"; do
        # rpm accepts no placeholder such as @VERSION@ as a version, and no `#%define NAME` without a body.
        sed -E -e 's/@[A-Za-z_]*@/0/g' -e 's/^(#[# ]*)(%(define|global)\s+\w+\s*)$/\1%\2/' "$spec" >"$work/${spec%.in}"
        run "${as_root[@]}" timeout "$limit" dnf builddep -y "${macros[@]}" --spec "$work/${spec%.in}" ||
            not_installed 'dnf builddep' "$?"
    done
fi

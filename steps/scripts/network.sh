#!/usr/bin/env bash
# network.sh: scripts source this if they or their children use the network. No call waits for a silent server.
#
# apt, dnf, pip and npm have their own limits. git, curl and wget have none, or one of hours.
silence=${BUILDPACKAGES_NETWORK_SILENCE:-120}
# A git server may look for a commit for minutes before it sends the first byte.
git_silence=${BUILDPACKAGES_NETWORK_SILENCE:-300}
# shellcheck disable=SC2034
limit=${BUILDPACKAGES_NETWORK_LIMIT:-1800}
export GIT_TERMINAL_PROMPT=0 GIT_ASKPASS=''
export GIT_HTTP_LOW_SPEED_LIMIT=${GIT_HTTP_LOW_SPEED_LIMIT:-1} GIT_HTTP_LOW_SPEED_TIME=${GIT_HTTP_LOW_SPEED_TIME:-$git_silence}
mkdir -p network
# wget and curl read one file each. Ours begins with the limits; the lines of the file that they would have read
# follow, and win.
network_theirs() {
    local file
    for file in "$@"; do
        if [ -f "$file" ]; then
            cat "$file"
            return
        fi
    done
}
{
    printf 'timeout = %s\ntries = 3\n' "$silence"
    if [ -n "${WGETRC:-}" ]; then network_theirs "$WGETRC"; else network_theirs ~/.wgetrc; fi
} >network/wgetrc
{
    printf 'connect-timeout = %s\nspeed-limit = 1\nspeed-time = %s\n' "$silence" "$silence"
    network_theirs "${CURL_HOME:+$CURL_HOME/.curlrc}" "${XDG_CONFIG_HOME:+$XDG_CONFIG_HOME/curlrc}" ~/.curlrc ~/.config/curlrc
} >network/.curlrc
export WGETRC=$PWD/network/wgetrc CURL_HOME=$PWD/network

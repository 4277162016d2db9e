#!/usr/bin/env bash
# network.sh: scripts source this if they or their children use the network. No call waits for a silent server.
#
# apt, dnf, pip and npm have their own limits. git, curl and wget have none, or one of hours.
silence=${BUILDPACKAGES_NETWORK_SILENCE:-120}
# shellcheck disable=SC2034
limit=${BUILDPACKAGES_NETWORK_LIMIT:-1800}
export GIT_TERMINAL_PROMPT=0 GIT_ASKPASS=''
# A git server that counts objects still sends some bytes.
export GIT_HTTP_LOW_SPEED_LIMIT=1 GIT_HTTP_LOW_SPEED_TIME=$silence
mkdir -p network
export WGETRC=$PWD/network/wgetrc CURL_HOME=$PWD/network
{
    cat ~/.wgetrc 2>/dev/null || true
    printf 'timeout = %s\ntries = 3\n' "$silence"
} >"$WGETRC"
{
    cat ~/.curlrc 2>/dev/null || true
    printf 'connect-timeout = %s\nspeed-limit = 1\nspeed-time = %s\n' "$silence" "$silence"
} >"$CURL_HOME/.curlrc"

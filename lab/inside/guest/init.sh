#!/bin/sh
# lab-init USER_DATA PID_FILE: the first process of a server that its user data can see. Runs the user data
# once, and lives until it is told to power off, as a machine does.
echo $$ >"$2"
trap 'echo "lab: powered off"; exit 0' TERM
if [ -z "$1" ]; then
    echo "lab: on again; the user data has run already"
elif [ -x "$1" ]; then
    echo "lab: running the user data"
    "$1" &
    wait "$!"
    echo "lab: the user data ended with status $?"
else
    echo "lab: there is no user data"
fi
while :; do
    sleep 86400 &
    wait "$!"
done

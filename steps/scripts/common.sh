# Every script sources this first. A script reports to its step; its children cannot.
#
#   value NAME TEXT   something that the step wants to know; reported if the script ends with status 0
#   fail SENTENCE     the script ends with status 1, and this sentence is what the user sees; the step appends the
#                     cause that it finds in the log, unless the sentence has a colon, and so a cause of its own
#   remove_at_end F   the file or directory F is removed when the script ends: the EXIT trap is the report's
#
# The step sends a key as the first line of the standard input. Each line of the report begins with the key, and the step
# believes no other line. Children of the script cannot print such a line: the key is not exported, their
# standard input is empty, and only a failure is reported before the script ends. Without a key (a script
# that is run by hand) the report is plain `NAME=TEXT` and `FAILED: SENTENCE`.
# shellcheck shell=bash
set -euo pipefail
export LC_ALL=C.UTF-8

declare +x report_key=
[ -t 0 ] || IFS= read -r report_key || true
[[ $report_key =~ ^[0-9a-f]{32}$ ]] || report_key=
exec </dev/null

report_values=() report_remove=()
remove_at_end() {
    report_remove+=("$@")
}

value() {
    report_values+=("$1=$2")
}

fail() {
    local sentence=${*//[[:cntrl:]]/ }
    report_line "FAILED: ${sentence:0:1000}" >&2
    exit 1
}

# A child may have left an unfinished line in the output, so each line of ours begins with an end of line.
report_line() {
    if [ -n "$report_key" ]; then
        printf '\n%s %s\n' "$report_key" "$1"
    else
        printf '%s\n' "$1"
    fi
}

# NAME=TEXT with %XX for all but printable ASCII without spaces, in lines short enough that a pipe and the worker keep them whole.
report_value() {
    local LC_ALL=C name=${1%%=*} text=${1#*=} encoded='' character code position join='='
    if [ -z "$report_key" ]; then
        report_line "$1"
        return
    fi
    for ((position = 0; position < ${#text}; position++)); do
        character=${text:position:1}
        case $character in
            % | [!\!-~])
                printf -v code %d "'$character"
                printf -v character '%%%02X' $((code & 255))
                ;;
        esac
        encoded+=$character
    done
    while :; do
        report_line "$name$join${encoded:0:1000}"
        encoded=${encoded:1000} join='+='
        [ -n "$encoded" ] || break
    done
}

report_end() {
    local status=$? named
    [ ${#report_remove[@]} = 0 ] || rm -rf "${report_remove[@]}"
    if [ "$status" = 0 ]; then
        for named in "${report_values[@]}"; do
            report_value "$named"
        done
    fi
    [ -n "$report_key" ] || return "$status"
    # Each report takes one of the two streams: they arrive in no order.
    if [ "$status" = 0 ]; then report_line "exit 0"; else report_line "exit $status" >&2; fi
}
trap report_end EXIT

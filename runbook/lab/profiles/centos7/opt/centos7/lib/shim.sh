# What the shims in ../bin share. A shim stands before a program of this Debian and makes of it the one of CentOS 7:
# what the old one does not know is refused with its message and exit status, and the output is the old one's.
# Their shell is dash, which a replaced /bin/sh does not touch.
# shellcheck shell=dash

# A shim has the name of its program.
me=${0##*/}

# refuse STATUS LINE…: end with a message.
refuse() {
    status=$1
    shift
    printf '%s\n' "$@" >&2
    exit "$status"
}

# real ARGUMENT…: become the program itself.
real() {
    for place in /usr/bin /usr/sbin; do
        [ ! -x "$place/$me" ] || exec "$place/$me" "$@"
    done
    refuse 127 "sh: $me: command not found"
}

# options SHORT LONG ARGUMENT…: the arguments as getopt_long(3) of the old program takes them apart, in $options for
# `eval "set -- $options"`; SHORT and LONG as in getopt(1). Fails where it refuses them, with its message in $options.
options() {
    short=$1 long=$2
    shift 2
    options=$(/usr/bin/getopt -s sh -n "$me" -o "$short" -l "$long" -- "$@" 2>/dev/null) && return
    options=$(/usr/bin/getopt -Q -n "$me" -o "$short" -l "$long" -- "$@" 2>&1)
    return 1
}

# newer STATUS FORMAT LIST ARGUMENT…: refuse each argument that is in LIST, words with a blank before and after each.
# FORMAT is printf's for the message, with one %s for the argument.
newer() {
    status=$1 format=$2 list=$3
    shift 3
    for word; do
        case $list in
        # shellcheck disable=SC2059 # it is a format
        (*" ${word%%=*} "*) refuse "$status" "$(printf "$format" "$word")" ;;
        esac
    done
}

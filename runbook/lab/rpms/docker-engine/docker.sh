#!/bin/sh
# Docker's client, with a version that is printed as Docker's own packages print it: Debian's suffix is left out, for
# Mesos (which asks with `-H SOCKET --version`) refuses it.
program=/usr/libexec/docker/docker
case "$#:$*" in
'1:--version' | '1:-v' | '3:-H '*' --version' | '3:-H '*' -v')
    "$program" --version | sed 's/+dfsg[0-9]*//'
    ;;
*)
    exec "$program" "$@"
    ;;
esac

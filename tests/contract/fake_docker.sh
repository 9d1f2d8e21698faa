#!/bin/sh
# A docker command for tests of the slave double: `docker -H SOCKET COMMAND ...`. A container is a process `sleep`; its
# files, NAME.pid and NAME.argv, are beside the folder of this script's link, in $0.d. The image t:1 is here, pulled/1
# can be pulled, slow/1 takes a minute, no other exists.
set -u
state=$0.d
mkdir -p "$state"
socket=$2
shift 2
case $socket in unix://*) ;; *) echo "no socket: $socket" >&2; exit 1 ;; esac
command=$1
shift
alive() { kill -0 "$(cat "$state/$1.pid" 2>/dev/null)" 2>/dev/null; }
case $command in
    --version) echo 'Docker version 1.11.1, build 5604cbe' ;;
    pull)
        case $1 in
            pulled:1) touch "$state/pulled" ;;
            slow:1) exec sleep 60 ;;
            *) echo "Error: image $1 not found" >&2; exit 1 ;;
        esac
        ;;
    inspect)
        case $1 in
            t:1) ;;
            pulled:1) [ -e "$state/pulled" ] ;;
            *)
                [ -e "$state/$1.pid" ] || exit 1
                alive "$1" && running=true || running=false
                echo "[{\"State\": {\"Running\": $running}, \"NetworkSettings\": {\"IPAddress\": \"172.17.0.2\"}}]"
                ;;
        esac
        ;;
    run)
        echo "$*" >"$state/argv.$$"  # several may run at once
        while [ "$1" != --name ]; do shift; done
        name=$2
        mv "$state/argv.$$" "$state/$name.argv"
        sleep 1000 &
        echo $! >"$state/$name.pid"
        wait $!
        ;;
    stop) kill -9 "$(cat "$state/$3.pid")" ;;
    ps) for pid in "$state"/*.pid; do [ ! -e "$pid" ] || basename "$pid" .pid; done ;;
    rm)
        kill -9 "$(cat "$state/$3.pid")" 2>/dev/null
        rm "$state/$3.pid"
        ;;
    *) echo "unknown command $command" >&2; exit 1 ;;
esac

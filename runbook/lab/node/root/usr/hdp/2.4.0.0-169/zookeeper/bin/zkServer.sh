#!/bin/sh
# Starts, stops and asks ZooKeeper, with the behaviour of the script that ZooKeeper 3.4.6 ships, as an operator of
# the document's hosts knows it: `start` exits 0 when the pid file names any living process, be it ZooKeeper or not;
# `stop` is kill -9 and exits 0 even when there is nothing to stop; `status` prints the mode of the member.
# The server is Debian's ZooKeeper.
set -u

conf_dir=${ZOOCFGDIR:-/etc/zookeeper/conf}
[ -r "$conf_dir/zookeeper-env.sh" ] && . "$conf_dir/zookeeper-env.sh"
command=${1:-}
config=${2:-$conf_dir/zoo.cfg}

setting() {
    sed -n "s/^[[:space:]]*$1[[:space:]]*=[[:space:]]*//p" "$config" | tail -n 1
}

echo "Using config: $config" >&2
if [ ! -r "$config" ]; then
    echo "cannot read $config" >&2
    exit 1
fi

data_dir=$(setting dataDir)
pid_file=${ZOOPIDFILE:-$data_dir/zookeeper_server.pid}
log_dir=${ZOO_LOG_DIR:-$(dirname "$0")/../logs}
log_name=zookeeper-$(id -un)-server-$(hostname)
jars=/usr/share/java
classpath=$conf_dir:$jars/zookeeper.jar:$jars/slf4j-log4j12.jar:$jars/log4j-1.2.jar

case $command in
start)
    printf 'Starting zookeeper ... '
    if [ -f "$pid_file" ] && kill -0 "$(cat "$pid_file")" 2>/dev/null; then
        echo "already running as process $(cat "$pid_file")."
        exit 0
    fi
    mkdir -p "$log_dir" "$(dirname "$pid_file")"
    # shellcheck disable=SC2086 # the flags are words
    nohup java "-Dzookeeper.log.dir=$log_dir" "-Dzookeeper.log.file=$log_name.log" -cp "$classpath" \
        ${SERVER_JVMFLAGS:-} org.apache.zookeeper.server.quorum.QuorumPeerMain "$config" \
        >"$log_dir/$log_name.out" 2>&1 </dev/null &
    if ! printf %s "$!" >"$pid_file"; then
        echo 'FAILED TO WRITE PID'
        exit 1
    fi
    sleep 1
    echo STARTED
    ;;
stop)
    printf 'Stopping zookeeper ... '
    if [ -f "$pid_file" ]; then
        kill -9 "$(cat "$pid_file")"
        rm "$pid_file"
        echo STOPPED
    else
        echo "no zookeeper to stop (could not find file $pid_file)"
    fi
    ;;
restart)
    "$0" stop "$config"
    sleep 3
    exec "$0" start "$config"
    ;;
status)
    address=$(setting clientPortAddress)
    mode=$(java -cp "$classpath" org.apache.zookeeper.client.FourLetterWordMain \
        "${address:-localhost}" "$(setting clientPort)" srvr 2>/dev/null | grep '^Mode')
    if [ -z "$mode" ]; then
        echo 'Error contacting service. It is probably not running.'
        exit 1
    fi
    echo "$mode"
    ;;
*)
    echo "Usage: $0 {start|stop|restart|status} [CONFIG]" >&2
    exit 1
    ;;
esac

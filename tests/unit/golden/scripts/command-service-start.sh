ours() { [ -r "/proc/$1/cmdline" ] && tr '\0' ' ' 2>/dev/null < "/proc/$1/cmdline" | grep -qF -e QuorumPeerMain; }
pid_of() {
  pid=$(cat /var/run/zookeeper_server.pid 2>/dev/null)
  case $pid in (''|*[!0-9]*) return 1;; esac
  ours "$pid" && echo "$pid"
}
await() {
  n=0
  while [ $n -lt 150 ]; do "$@" && return 0; sleep 0.2; n=$((n+1)); done
  return 1
}
steady() {
  was=$("$@") || return 1
  n=0
  while [ $n -lt 10 ]; do sleep 0.2; [ "$("$@")" = "$was" ] || return 1; n=$((n+1)); done
}
( cd / 2>/dev/null || cd /; exec env LC_ALL=en_US.UTF-8 /usr/hdp/zookeeper/bin/zkServer.sh start 'a b' ) || exit 1
failed() {
  echo zookeeper "$1" >&2
  pid=$(cat /var/run/zookeeper_server.pid 2>/dev/null)
  if [ -n "$pid" ] && [ -r "/proc/$pid/cmdline" ] && ! ours "$pid"; then
    other=$(tr '\0' '\n' < "/proc/$pid/cmdline" | head -n 1)
    echo /var/run/zookeeper_server.pid names process "$pid", which is another program: "$other" >&2
  fi
  exit 1
}
await pid_of > /dev/null || failed "did not start within 30 s"
steady pid_of || failed "ended as soon as it had started: read its log"

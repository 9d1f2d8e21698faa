systemctl daemon-reload || exit 1
systemctl enable mesos-master || { systemctl --no-pager --full -n 20 status mesos-master >&2; exit 1; }
systemctl reset-failed mesos-master 2>/dev/null
systemctl start mesos-master || { systemctl --no-pager --full -n 20 status mesos-master >&2; exit 1; }
steady() {
  was=$("$@") || return 1
  n=0
  while [ $n -lt 10 ]; do sleep 0.2; [ "$("$@")" = "$was" ] || return 1; n=$((n+1)); done
}
state() { systemctl show -p ActiveState,SubState,MainPID mesos-master; }
steady state && state | grep -qx ActiveState=active || { systemctl --no-pager --full -n 20 status mesos-master >&2; exit 1; }

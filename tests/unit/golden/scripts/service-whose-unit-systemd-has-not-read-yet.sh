systemctl daemon-reload || exit 1
systemctl enable mesos-slave || { systemctl --no-pager --full -n 20 status mesos-slave >&2; exit 1; }
systemctl reset-failed mesos-slave 2>/dev/null
systemctl start mesos-slave || { systemctl --no-pager --full -n 20 status mesos-slave >&2; exit 1; }
steady() {
  was=$("$@") || return 1
  n=0
  while [ $n -lt 10 ]; do sleep 0.2; [ "$("$@")" = "$was" ] || return 1; n=$((n+1)); done
}
state() { systemctl show -p ActiveState,SubState,MainPID mesos-slave; }
steady state && state | grep -qx ActiveState=active || { systemctl --no-pager --full -n 20 status mesos-slave >&2; exit 1; }

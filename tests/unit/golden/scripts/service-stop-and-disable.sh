systemctl daemon-reload || exit 1
systemctl disable mesos-slave || { systemctl --no-pager --full -n 20 status mesos-slave >&2; exit 1; }
systemctl stop mesos-slave || { systemctl --no-pager --full -n 20 status mesos-slave >&2; exit 1; }

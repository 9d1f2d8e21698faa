rm -f /etc/rsyslog.d/bad.conf

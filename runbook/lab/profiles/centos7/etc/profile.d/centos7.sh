# Login shells, whose PATH /etc/profile sets, find the shims too.
PATH=/opt/centos7/bin:$PATH

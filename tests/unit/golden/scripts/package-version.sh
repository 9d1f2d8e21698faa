set -e
yum -y -q install mesos-0.28.0-2.0.16.centos701406
[ "$(rpm -q --qf '%{VERSION}-%{RELEASE}' mesos)" = 0.28.0-2.0.16.centos701406 ] || yum -y -q downgrade mesos-0.28.0-2.0.16.centos701406

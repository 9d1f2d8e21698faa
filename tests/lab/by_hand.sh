# The source document's own commands, section by section, mistakes included, with a lab's addresses and packages.
# $me, $n1 $n2 $n3: the addresses of this node and of all; $id: its number; $userland $registry $page: tags of images.
# Each `section_…` is what one section of the document has typed on a node.

section_1() { # ZooKeeper came with Hadoop, with its myid (1.3); 2.2.1 writes another one, which nothing reads
  echo "$id" > /var/lib/zookeeper/myid
  mkdir -p /etc/mesos
  echo "zk://$n1:2181,$n2:2181,$n3:2181/mesos" > /tmp/zk
  echo "$id" > /etc/zookeeper/conf/myid
  printf 'server.1=%s:2888:3888\nserver.2=%s:2888:3888\nserver.3=%s:2888:3888\n' "$n1" "$n2" "$n3" \
    >> /etc/zookeeper/conf/zoo.cfg
  /usr/hdp/2.4.0.0-169/zookeeper/bin/zkServer.sh start
}

section_2() {
  yum install -y mesos
  cp /tmp/zk /etc/mesos/zk
  echo 2 > /etc/mesos-master/quorum
  echo "$me" | tee /etc/mesos-master/ip
  cp /etc/mesos-master/ip /etc/mesos-master/hostname
  cat > /etc/default/mesos-master << 'END'
PORT=8150
ZK=`cat /etc/mesos/zk`
END
  service mesos-master restart
  cat > /etc/rsyslog.d/mesos.conf << 'END'
if $programname == 'marathon' then {
   action(type="omfile" file="/var/log/mesos/marathon.log")
}

if $programname == 'chronos' then {
   action(type="omfile" file="/var/log/mesos/chronos.log")
}

if $programname == 'mesos-master' then {
   action(type="omfile" file="/var/log/mesos/mesos-master.log")
}

if $programname == 'mesos-slave' then {
   action(type="omfile" file="/var/log/mesos/mesos-slave.log")
}
END
  service rsyslog restart
}

section_3() {
  echo "$me" | tee /etc/mesos-slave/ip
  cp /etc/mesos-slave/ip /etc/mesos-slave/hostname
  echo "ports:[8400-9100]" > /etc/mesos-slave/resources
  service mesos-slave restart
}

section_4() {
  rpm -ivh /tmp/marathon.rpm
  mkdir -p /etc/marathon/conf
  cp /etc/mesos/zk /etc/marathon/conf/master
  cp /etc/marathon/conf/master /etc/marathon/conf/zk
  sed -i 's/mesos/marathon/g' /etc/marathon/conf/zk
  cp /etc/mesos-master/hostname /etc/marathon/conf
  service marathon restart
}

section_5() {
  yum install -y docker-engine.x86_64
  service docker start
  docker load < /tmp/centos.tar
}

section_7_2() {
  sed -i "s|^ExecStart=.*|& --insecure-registry $n1:8600|" /usr/lib/systemd/system/docker.service
  systemctl daemon-reload
  service docker restart
}

section_7() { # of the two commands under one name the second fails
  docker load < /tmp/registry.tar
  docker run -d -v /opt/registry:/var/lib/registry -p 8600:5000 --restart=always --name registry "$registry"
  docker run -d -e REGISTRY_STORAGE_DELETE_ENABLED=true -v /opt/registry:/var/lib/registry -p 8600:5000 \
    --restart=always --name registry "$registry" || echo "as expected: the name is taken"
  docker tag "$userland" "$n1:8600/ubuntu:latest"
  docker push "$n1:8600/ubuntu"
}

section_8() { # without a name
  docker load < /tmp/hyper_registry_web.tar
  docker run -d -p 8400:8080 -e REGISTRY_HOST="$n1" -e REGISTRY_PORT=8600 "$page"
}

section_4_3() { # the app that was clicked together in Marathon's page
  cat > /root/test2.json << 'END'
{"id": "test2", "cpus": 0.1, "mem": 16, "instances": 4,
 "cmd": "while true; do ( echo \"HTTP/1.0 200 Ok\"; echo; echo \"Hello World\" ) | nc -l $PORT; done"}
END
  curl -sf -X POST -H "Content-Type: application/json" "http://$n1:8080/v2/apps" -d@/root/test2.json
}

section_5_3() { # it waits: the document leaves out `containerizers`, without which a slave runs no Docker tasks
  cat > /root/marathon-test.json << END
{
  "container": {
    "type": "DOCKER",
    "docker": {
    "image": "$userland"
    }
  },
  "id": "centos-marathon",
  "instances": 3,
  "cpus": 0.5,
  "mem": 256,
  "uris": [],
  "cmd": "while sleep 10; do date -u +%T; done"
}
END
  curl -sf -X POST -H "Content-Type: application/json" "http://$n1:8080/v2/apps" -d@/root/marathon-test.json
}

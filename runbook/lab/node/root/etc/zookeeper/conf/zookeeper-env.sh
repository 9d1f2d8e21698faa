# Read by zkServer.sh. Answers every four-letter word and opens no admin port, as ZooKeeper 3.4.6 does: newer ones
# would answer only `srvr` and take port 8080, which is Marathon's.
SERVER_JVMFLAGS="-Xmx256m -XX:+UseSerialGC -Dzookeeper.4lw.commands.whitelist=* -Dzookeeper.admin.enableServer=false"
ZOO_LOG_DIR=/usr/hdp/2.4.0.0-169/zookeeper/logs

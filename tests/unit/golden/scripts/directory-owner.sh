set -e
mkdir -p /var/lib/zookeeper
chown zookeeper:root /var/lib/zookeeper
chmod 0755 /var/lib/zookeeper

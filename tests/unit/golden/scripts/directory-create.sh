set -e
mkdir -p /var/lib/zookeeper
chown zookeeper:hadoop /var/lib/zookeeper
chmod 0750 /var/lib/zookeeper

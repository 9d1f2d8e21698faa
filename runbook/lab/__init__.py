"""The rehearsal cluster: nodes on this machine, on which the runbook's chapters run for real.

engine.py      the Docker engine that answers, or one of our own
image.py       the node image: Debian, systemd, sshd, yum, and ZooKeeper as the document found it
profile.py     what the nodes are like over SSH: CentOS 7, or the plain Debian
rpms/          the RPM repository, a folder per package
images/        the image archives, a folder per image
network.py     the nodes' network, which has no way out
cluster.py     the nodes: made, started, mended, removed
keys.py        SSH keys, host keys, known_hosts
parameters.py  parameters/lab.yml
"""

from runbook.lab.cluster import Lab, Node, NodeStatus, attach, down, status, up
from runbook.lab.engine import Output

__all__ = ["Lab", "Node", "NodeStatus", "Output", "attach", "down", "status", "up"]

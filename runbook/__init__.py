"""An executable runbook for clusters of ZooKeeper, Mesos, Marathon, Docker and a private registry."""

import sys

if "ipykernel.kernelapp" in sys.modules:  # imported by a notebook: none of its output may be lost
    from runbook import output

    output.keep_all()

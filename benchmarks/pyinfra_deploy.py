"""The 12 steps as pyinfra's users write them."""

import os

from pyinfra import host
from pyinfra.operations import files, systemd, yum

from benchmarks.fleet import PACKAGE, SERVICE, Fleet

fleet = Fleet.read(os.environ["BENCH_FLEET"])

for target, source in fleet.files(host.data.address).items():
    files.put(src=str(source), dest=str(target), user=fleet.user, group=fleet.group, mode="644")
yum.packages(packages=[PACKAGE])
systemd.service(service=SERVICE, running=True, enabled=True)

"""pyinfra's view of the fleet; the folder comes from the environment, as an inventory takes no arguments."""

import os

from benchmarks.fleet import Fleet

fleet = Fleet.read(os.environ["BENCH_FLEET"])

hosts = [
    (
        name,
        {
            "address": address,
            "ssh_hostname": address,
            "ssh_port": fleet.port,
            "ssh_user": fleet.user,
            "ssh_key": str(fleet.key),
            "ssh_known_hosts_file": str(fleet.known_hosts),
            "ssh_strict_host_key_checking": "yes",
            "ssh_allow_agent": False,
            "ssh_look_for_keys": False,
        },
    )
    for name, address in fleet.hosts.items()
]

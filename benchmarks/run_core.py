"""This core, as a process of its own: `python -m benchmarks.run_core FLEET`. Prints how many steps changed."""

from __future__ import annotations

import sys

from benchmarks.fleet import Fleet
from benchmarks.workload import keep_state_in, steps_of
from runbook.remote.hosts import Hosts
from runbook.remote.modes import Mode, Status
from runbook.site import Site


def main() -> None:
    fleet = Fleet.read(sys.argv[1])
    keep_state_in(fleet)
    steps = steps_of(fleet)
    with Hosts.of(Site.load(fleet.site_file), mode=Mode.APPLY) as hosts:
        result = hosts.apply(lambda host: steps(host.address), "converge")
    print(result.counts[Status.CHANGED])


if __name__ == "__main__":
    main()

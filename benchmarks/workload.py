"""The 12 steps of every host, as this core states them: 10 small files, one package, one service."""

from __future__ import annotations

from collections.abc import Callable

from paramiko import Channel

from benchmarks.fleet import PACKAGE, SERVICE, Fleet
from runbook.remote import hosts, session, steps
from runbook.remote.shell import Reader


def steps_of(fleet: Fleet) -> Callable[[str], list[steps.Step]]:
    """The steps of the host at an address."""

    def of(address: str) -> list[steps.Step]:
        return [
            *(
                steps.File(str(target), source.read_bytes(), owner=fleet.user, group=fleet.group)
                for target, source in fleet.files(address).items()
            ),
            steps.Package(PACKAGE),
            steps.Service(SERVICE),
        ]

    return of


def keep_state_in(fleet: Fleet) -> None:
    """Let each host's scripts stage, lock and back up below the host's own folder instead of in /var/lib/runbook."""

    class OwnState(session.Session):
        def _converse(self, channel: Channel, script: str, reader: Reader) -> int:
            own = str(fleet.root(self.login.address) / "state")
            return super()._converse(channel, script.replace(steps.STATE_DIR, own), reader)

    hosts.Session = OwnState  # type: ignore[attr-defined]

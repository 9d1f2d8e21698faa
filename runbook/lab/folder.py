"""Where a lab keeps what belongs to it: keys, the RPM repository, and, where it runs an engine of its own, its data."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def site_file() -> Path:
    """The parameter file that `up` writes: parameters/lab.yml of this checkout, or what RUNBOOK_LAB_SITE names."""
    return Path(os.environ.get("RUNBOOK_LAB_SITE", CHECKOUT / "parameters" / "lab.yml")).absolute()


@dataclass(frozen=True)
class Folder:
    """The state folder of one lab. Two folders are two labs, which do not meet even on one engine.

    Everything is below `path`, except what an engine of our own needs only while it runs: the path of a Unix socket
    may have 108 bytes, and a checkout can lie deeper than that.
    """

    path: Path

    @classmethod
    def default(cls) -> Folder:
        """`.lab` in this checkout, or what RUNBOOK_LAB_DIR names (elsewhere, where there is more space)."""
        return cls(Path(os.environ.get("RUNBOOK_LAB_DIR", CHECKOUT / ".lab")).resolve())

    @cached_property
    def id(self) -> str:
        """Eight hex digits that mark this lab's containers, network and runtime folder."""
        return hashlib.sha256(os.fsencode(self.path)).hexdigest()[:8]

    @property
    def site(self) -> str:
        """The name of the lab's site. Labs elsewhere have names of their own: one site is rolled out once at a time."""
        return "lab" if self.path == CHECKOUT / ".lab" else f"lab-{self.id}"

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def keys(self) -> Path:
        return self.path / "keys"

    @property
    def user_key(self) -> Path:
        return self.keys / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        return self.path / "known_hosts"

    @property
    def operator_password(self) -> Path:
        """The password of the nodes' user `operator`, readable by its owner only."""
        return self.path / "operator.password"

    @property
    def packages(self) -> Path:
        """The RPMs; nodes see this folder as /opt/lab-repo."""
        return self.path / "packages"

    @property
    def images(self) -> Path:
        """The image archives."""
        return self.path / "images"

    @property
    def mysql_password(self) -> Path:
        """The password of MySQL's user; it and root's are readable by their owner only."""
        return self.path / "mysql.password"

    @property
    def mysql_root_password(self) -> Path:
        return self.path / "mysql-root.password"

    @property
    def engine_config(self) -> Path:
        """Configuration of our own engine; it exists once there is one."""
        return self.path / "engine.json"

    @property
    def engine_data(self) -> Path:
        return self.path / "engine"

    @property
    def engine_log(self) -> Path:
        return self.path / "engine.log"

    @property
    def runtime(self) -> Path:
        return Path("/run") / f"runbook-lab-{self.id}"

    @property
    def socket(self) -> Path:
        return self.runtime / "docker.sock"

"""The tools that are compared: how each is run on a fleet, as a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from benchmarks import scripts
from benchmarks.fleet import FILES, PACKAGE, SERVICE, BenchmarkError, Fleet

HERE = Path(__file__).parent
FORKS = 50


@dataclass(frozen=True)
class Tool(ABC):
    """One way to bring a fleet to the desired state. `python` is that of the tool's environment."""

    title: str
    python: Path

    @abstractmethod
    def command(self, fleet: Fleet) -> list[str]:
        """The words of the command that is timed."""

    def environment(self, fleet: Fleet) -> dict[str, str]:
        """What the command's environment has besides the usual: HOME is empty, so that no one's settings count."""
        return {
            "BENCH_FLEET": str(fleet.folder),
            "PYTHONPATH": str(HERE.parent),
            "PYTHONDONTWRITEBYTECODE": "",
            "HOME": str(fleet.folder / "home"),
            "LC_ALL": "C.UTF-8",
        }

    def prepare(self, fleet: Fleet) -> None:
        """Write what the tool reads; not timed, as a user wrote it long ago."""
        return

    def finish(self, fleet: Fleet) -> None:
        """End what the tool leaves running, so that the next run begins without connections; not timed."""
        return

    @property
    def distributions(self) -> tuple[str, ...]:
        """The distributions whose versions matter."""
        return ()

    def versions(self) -> dict[str, str]:
        """The versions of these in the tool's environment. Raises BenchmarkError where one is missing."""
        code = "import importlib.metadata as m, sys; print(*map(m.version, sys.argv[1:]))"
        command = [str(self.python), "-c", code, *self.distributions]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise BenchmarkError(f"{self.title} is not installed in {self.python.parent.parent}: run `make bench`")
        return dict(zip(self.distributions, done.stdout.split(), strict=True))


class Core(Tool):
    """This core."""

    def command(self, fleet: Fleet) -> list[str]:
        return [str(self.python), "-m", "benchmarks.run_core", str(fleet.folder)]

    @property
    def distributions(self) -> tuple[str, ...]:
        return ("paramiko", "fabric", "cryptography")


class LibSsh2(Tool):
    """The core's scripts, sent by a C client."""

    def command(self, fleet: Fleet) -> list[str]:
        return [str(self.python), "-m", "benchmarks.run_libssh2", str(fleet.folder)]

    def prepare(self, fleet: Fleet) -> None:
        scripts.write(fleet)

    @property
    def distributions(self) -> tuple[str, ...]:
        return ("ssh2-python",)


class Pyinfra(Tool):
    """pyinfra's command line."""

    def command(self, fleet: Fleet) -> list[str]:
        files = (str(HERE / "pyinfra_inventory.py"), str(HERE / "pyinfra_deploy.py"))
        return [str(self.python.with_name("pyinfra")), "--yes", *files]

    @property
    def distributions(self) -> tuple[str, ...]:
        return ("pyinfra",)


class Ansible(Tool):
    """ansible-playbook with pipelining, lasting connections and a fork for each host (FORKS at most)."""

    def command(self, fleet: Fleet) -> list[str]:
        playbook = str(HERE / "ansible_playbook.yml")
        return [str(self.python.with_name("ansible-playbook")), "-i", str(self._inventory(fleet)), playbook]

    def environment(self, fleet: Fleet) -> dict[str, str]:
        arguments = f"-F none -o ControlMaster=auto -o ControlPersist=60s -o UserKnownHostsFile={fleet.known_hosts}"
        return super().environment(fleet) | {
            "ANSIBLE_CONFIG": str(fleet.folder / "ansible.cfg"),
            "ANSIBLE_HOME": str(fleet.folder / "ansible"),
            "ANSIBLE_FORKS": str(min(fleet.count, FORKS)),
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_TIMEOUT": "60",  # seconds for a connection: its 10 are not always enough for 50 forks on few cores
            "ANSIBLE_HOST_KEY_CHECKING": "1",
            "ANSIBLE_SSH_ARGS": arguments,
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self._sockets(fleet)),
        }

    def prepare(self, fleet: Fleet) -> None:
        hosts = {
            name: {
                "ansible_host": address,
                "root": str(fleet.root(address)),
                "source": str(fleet.source(address)),
            }
            for name, address in fleet.hosts.items()
        }
        everywhere = {
            "ansible_port": fleet.port,
            "ansible_user": fleet.user,
            "ansible_ssh_private_key_file": str(fleet.key),
            "ansible_python_interpreter": str(Path("/usr/bin/python3").resolve()),
            "owner": fleet.user,
            "group": fleet.group,
            "files": [f"agent-{index:02}.conf" for index in range(FILES)],
            "package": PACKAGE,
            "service": SERVICE,
        }
        (fleet.folder / "ansible.cfg").touch()  # empty, so that nobody's own counts
        self._inventory(fleet).write_text(json.dumps({"all": {"hosts": hosts, "vars": everywhere}}))

    def finish(self, fleet: Fleet) -> None:
        for socket in self._sockets(fleet).glob("*"):
            subprocess.run(["ssh", "-F", "none", "-O", "exit", "-S", str(socket), "host"], capture_output=True)

    @property
    def distributions(self) -> tuple[str, ...]:
        return ("ansible-core",)

    @staticmethod
    def _inventory(fleet: Fleet) -> Path:
        return fleet.folder / "ansible.json"

    @staticmethod
    def _sockets(fleet: Fleet) -> Path:
        return fleet.folder / "cp"


class Mitogen(Ansible):
    """The same playbook with Mitogen's strategy in the place of Ansible's own."""

    def environment(self, fleet: Fleet) -> dict[str, str]:
        code = "import ansible_mitogen as m, os; print(os.path.dirname(m.__file__))"
        package = subprocess.check_output([str(self.python), "-c", code], text=True).strip()
        return super().environment(fleet) | {
            "ANSIBLE_STRATEGY_PLUGINS": f"{package}/plugins/strategy",
            "ANSIBLE_STRATEGY": "mitogen_linear",
        }

    @property
    def distributions(self) -> tuple[str, ...]:
        return ("ansible-core", "mitogen")


def all_tools(rivals: Path) -> dict[str, Tool]:
    """The tools by the name that the command line knows; `rivals` is the environment of the others."""
    python = rivals / "bin" / "python"
    return {
        "core": Core("runbook", Path(sys.executable)),
        "libssh2": LibSsh2("libssh2 (C client)", python),
        "pyinfra": Pyinfra("pyinfra", python),
        "mitogen": Mitogen("Ansible with Mitogen", python),
        "ansible": Ansible("Ansible with pipelining", python),
    }

"""The nodes of a lab: containers that boot like machines, on a network of their own with no way out.

`up` makes what is missing, starts what is stopped and leaves alone what is right; each step can be repeated, so a run
that was killed is mended by the next one. A node whose image or shape is not the wanted one is made anew.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from docker.errors import DockerException, NotFound
from docker.models.containers import Container
from docker.models.networks import Network
from docker.types import IPAMConfig, IPAMPool, Mount
from filelock import FileLock, Timeout

from runbook.errors import LabError
from runbook.lab import engine as engines
from runbook.lab import image, keys, parameters, rpms
from runbook.lab.archive import Entry, digest, pack
from runbook.lab.engine import Engine, Output, Progress
from runbook.lab.folder import Folder, site_file
from runbook.lab.waiting import until

LABEL = "runbook.lab"
SHAPE = "runbook.lab.shape"

NETWORK = ipaddress.IPv4Network("198.51.100.0/24")
"""TEST-NET-2 (RFC 5737): no site has these addresses, so a lab that is down cannot be taken for one."""

PREFIX = 27
FIRST = 11
LIMIT = 20
"""Nodes on one network: .11 to .30 of its 32 addresses."""

MEMORY = 512 * 1024**2
"""Bytes that a node with all roles needs at least."""

# fmt: off
CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK",
    "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN",
    "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE",
    "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND",
    "AUDIT_READ",
)
# fmt: on
"""Linux's capabilities by number (capabilities(7)); later ones are unknown to Docker 20.10, and not needed."""


@dataclass(frozen=True)
class Node:
    """One node: its host name, its IPv4 address, and the name of its container in the engine."""

    name: str
    address: str
    container: str


@dataclass(frozen=True)
class NodeStatus:
    """How a node is.

    `state` is the container's, `ssh` whether the port answers, `started` an ISO 8601 time (empty: it does not run),
    `current` whether `image` is what `up` would make the node of.
    """

    node: Node
    state: str
    ssh: bool
    started: str
    image: str
    current: bool


class Lab:
    """A running lab. `nodes` in the order of their numbers; `site_file` is the parameter file that describes it.

    A context manager, which closes the connection to the engine and leaves the nodes running.
    """

    def __init__(self, engine: Engine, folder: Folder, nodes: tuple[Node, ...], site: Path) -> None:
        self.engine = engine
        self.folder = folder
        self.nodes = nodes
        self.site_file = site

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection to the engine."""
        self.engine.client.close()

    def node(self, name: str) -> Node:
        """The node called `name`; LabError where there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise LabError(f"the lab has no node {name}", f"its nodes: {', '.join(node.name for node in self.nodes)}")

    def exec(self, node: Node, command: Sequence[str] | str) -> Output:
        """Run a command (argv, or a script for /bin/sh) on a node as root, not over SSH: a second way to look at it."""
        argv = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
        return engines.execute(self._container(node), argv)

    def stop(self, node: Node) -> None:
        """Shut a node down, as `poweroff` does."""
        self._container(node).stop(timeout=30)

    def kill(self, node: Node) -> None:
        """End a node at once, as a power cut does."""
        self._container(node).kill()

    def start(self, node: Node) -> None:
        """Start a node, if it does not run, and wait until it answers."""
        _start(self._container(node), node, self.folder)
        _await_answer(self._container(node), node)

    def reset(self, node: Node) -> None:
        """Make a node anew, as it first came: nothing installed, nothing configured. Its keys stay the same."""
        container = self._container(node)
        network, _ = _ensure_network(self.engine, self.folder)
        tag = container.attrs["Config"]["Image"]
        container.remove(force=True, v=True)
        fresh = _create(self.engine, self.folder, node, network, tag)
        _start(fresh, node, self.folder)
        _await_answer(fresh, node)

    def _container(self, node: Node) -> Container:
        try:
            return self.engine.client.containers.get(node.container)
        except NotFound:
            raise LabError(f"{node.name} is gone", "run `runbook lab up`") from None


def up(nodes: int = 3, packages: Path | None = None, progress: Progress = lambda stage: None) -> Lab:
    """Bring up a lab of `nodes` nodes, with the RPMs in the folder `packages` in place of its own, and describe it
    in the parameter file. What is there and right is left alone; nodes beyond that number are removed.

    `progress` is called with each stage's name as it begins. LabError where it cannot work, with what is missing.
    """
    if not 1 <= nodes <= LIMIT:
        raise LabError(f"a lab has 1 to {LIMIT} nodes, not {nodes}")
    folder, target = Folder.default(), site_file()
    with _at_work(folder):
        engine = engines.ensure(folder, progress)
        tag = image.ensure(engine, folder, progress)
        repository = rpms.ensure(engine, tag, folder, packages, progress)
        network, subnet = _ensure_network(engine, folder)
        members = _members(folder, subnet, nodes)
        addresses = {node.name: node.address for node in members}
        keys.private_key(folder.user_key)
        keys.write_known_hosts(folder, addresses)
        progress("starting the nodes")
        _ensure_nodes(engine, folder, members, network, tag)
        image.prune(engine)
        parameters.save(parameters.document(addresses, repository, folder, target), target)
    return Lab(engine, folder, members, target)


def attach() -> Lab | None:
    """The lab as it is, without changing anything; None where there is no engine or no node."""
    folder = Folder.default()
    engine = engines.find(folder)
    if engine is None:
        return None
    members = tuple(_node(container) for container in _containers(engine, folder))
    if not members:
        engine.client.close()
        return None
    return Lab(engine, folder, members, site_file())


def status(lab: Lab) -> tuple[NodeStatus, ...]:
    """How each node is, as seen from here."""
    wanted = image.wanted()
    states = []
    for container in _containers(lab.engine, lab.folder):
        node = _node(container)
        tag = container.attrs["Config"]["Image"]
        running = container.status == "running"
        started = container.attrs["State"]["StartedAt"] if running else ""
        states.append(
            NodeStatus(node, container.status, running and _answers(node), started, tag, current=tag == wanted)
        )
    return tuple(states)


def down(*, everything: bool = False, progress: Progress = lambda stage: None) -> int:
    """Stop and remove the nodes with their data and network; the number of nodes that there were.

    With `everything` also the images, the packages, the keys, the parameter file, and the engine that the lab
    started, with its data. An engine that the lab did not start keeps running, and keeps all that is not the lab's.
    """
    folder = Folder.default()
    if not folder.path.exists():
        return 0
    with _at_work(folder):
        engine = engines.find(folder)
        if engine is None and folder.engine_config.exists():
            engine = engines.ensure(folder, progress)  # a killed one: its containers must go through it
        count = 0
        if engine is not None:
            progress("removing the nodes")
            count = _remove(engine, folder)
            if everything:
                image.remove(engine)
            engine.client.close()
        if everything:
            progress("removing the engine and its data")
            engines.remove(folder)
            keys.remove(folder)
            rpms.remove(folder)
            site_file().unlink(missing_ok=True)
    return count


@contextlib.contextmanager
def _at_work(folder: Folder) -> Iterator[None]:
    """Nobody else changes this lab meanwhile (waits for whoever does), and what the engine refuses is a LabError."""
    folder.path.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder.lock, timeout=engines.LONG):
            yield
    except DockerException as error:
        raise LabError(f"the Docker engine of the lab refused: {error}", "see the engine's log") from error
    except Timeout as error:
        raise LabError(
            f"another command has held {folder.lock} for {engines.LONG} s", "see what it waits for"
        ) from error


def _members(folder: Folder, subnet: ipaddress.IPv4Network, count: int) -> tuple[Node, ...]:
    return tuple(
        Node(f"node{number}", str(subnet[FIRST + number - 1]), f"runbook-lab-{folder.id}-node{number}")
        for number in range(1, count + 1)
    )


def _node(container: Container) -> Node:
    networks = container.attrs["NetworkSettings"]["Networks"].values()
    address = next(iter(networks))["IPAMConfig"]["IPv4Address"]
    return Node(container.attrs["Config"]["Hostname"], address, str(container.name))


def _containers(engine: Engine, folder: Folder) -> list[Container]:
    found = engine.client.containers.list(all=True, filters={"label": f"{LABEL}={folder.id}"})
    return sorted(found, key=lambda container: int(container.attrs["Config"]["Hostname"].removeprefix("node")))


def _ensure_network(engine: Engine, folder: Folder) -> tuple[Network, ipaddress.IPv4Network]:
    """The lab's network and its subnet; made where there is none, on addresses that nobody uses."""
    name = f"runbook-lab-{folder.id}"
    try:
        network = engine.client.networks.get(name)
    except NotFound:
        subnet = free_subnet([*_routes(), *_subnets(engine)])
        network = engine.client.networks.create(
            name,
            driver="bridge",
            internal=True,
            labels={LABEL: folder.id},
            ipam=IPAMConfig(pool_configs=[IPAMPool(subnet=str(subnet), gateway=str(subnet[1]))]),
        )
        return network, subnet
    return network, ipaddress.IPv4Network(network.attrs["IPAM"]["Config"][0]["Subnet"])


def free_subnet(used: Sequence[ipaddress.IPv4Network]) -> ipaddress.IPv4Network:
    """The first part of TEST-NET-2 that overlaps none of `used`; LabError where there is none."""
    for subnet in NETWORK.subnets(new_prefix=PREFIX):
        if not any(subnet.overlaps(other) for other in used if other.prefixlen):
            return subnet
    raise LabError(f"every part of {NETWORK} is in use on this machine", "take another lab down: `runbook lab down`")


def _routes() -> Iterator[ipaddress.IPv4Network]:
    """Networks that this machine has routes to."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        fields = line.split()
        address, mask = (int.from_bytes(bytes.fromhex(fields[column]), "little") for column in (1, 7))
        yield ipaddress.IPv4Network((address, mask.bit_count()))


def _subnets(engine: Engine) -> Iterator[ipaddress.IPv4Network]:
    """Networks of the engine; it does not allow overlaps."""
    for network in engine.client.networks.list():
        for config in network.attrs["IPAM"]["Config"] or []:
            if ":" not in config["Subnet"]:
                yield ipaddress.IPv4Network(config["Subnet"])


def _ensure_nodes(engine: Engine, folder: Folder, nodes: Sequence[Node], network: Network, tag: str) -> None:
    present = {str(container.name): container for container in _containers(engine, folder)}
    shape = _shape(engine, folder, network, tag)
    missing = [node for node in nodes if node.container not in present or present[node.container].status != "running"]
    _demand_memory(len(missing))
    for name in present.keys() - {node.container for node in nodes}:
        present[name].remove(force=True, v=True)

    def settle(node: Node) -> None:
        container = present.get(node.container)
        if container is not None and (container.labels.get(SHAPE) != shape or container.status in ("dead", "removing")):
            container.remove(force=True, v=True)
            container = None
        if container is None:
            container = _create(engine, folder, node, network, tag)
        _start(container, node, folder)
        _await_answer(container, node)

    with ThreadPoolExecutor(max_workers=min(len(nodes), 8)) as pool:
        list(pool.map(settle, nodes))


def _form(engine: Engine, folder: Folder) -> dict[str, Any]:
    """How a node's container is kept, in the engine's terms (HostConfig): near to a machine, without `--privileged`."""
    form = engine.client.api.create_host_config(
        cap_add=capabilities(Path("/proc/self/status").read_text()),
        security_opt=["seccomp=unconfined", "apparmor=unconfined"],
        tmpfs={"/run": "", "/tmp": "exec"},
        mounts=[
            Mount("/var/lib/docker", None, type="volume"),  # an overlay cannot lie on the container's own
            Mount(rpms.MOUNT, str(folder.packages), type="bind", read_only=True),
        ],
    )
    # Nothing of /proc and /sys is hidden: this is what `docker run --security-opt systempaths=unconfined` asks for.
    return {**form, "CgroupnsMode": "private", "MaskedPaths": [], "ReadonlyPaths": []}


def _shape(engine: Engine, folder: Folder, network: Network, tag: str) -> str:
    """Names what nodes are made of and with: one of another shape is made anew."""
    parts = [tag, str(network.id), json.dumps(_form(engine, folder), sort_keys=True)]
    return digest([*(part.encode() for part in parts), keys.private_key(folder.user_key)])


def capabilities(status: str) -> list[str]:
    """The capabilities in the bounding set of /proc/PID/status: all that can be given to a container from here.

    A kernel may withhold some from all of the lab; asking for one of those makes the container fail to start, so
    `--privileged` is no way.
    """
    line = next(line for line in status.splitlines() if line.startswith("CapBnd:"))
    bounding = int(line.split()[1], 16)
    return [name for number, name in enumerate(CAPABILITIES) if bounding >> number & 1]


def _create(engine: Engine, folder: Folder, node: Node, network: Network, tag: str) -> Container:
    """Make the container of a node. It is given its keys before its first start, see `_start`."""
    subnet = ipaddress.IPv4Network((node.address, PREFIX), strict=False)
    everyone = [f"{other.name}:{other.address}" for other in _members(folder, subnet, LIMIT)]
    api = engine.client.api
    networking: Any = {"EndpointsConfig": {network.name: api.create_endpoint_config(ipv4_address=node.address)}}
    made = api.create_container(
        tag,
        name=node.container,
        hostname=node.name,
        labels={LABEL: folder.id, SHAPE: _shape(engine, folder, network, tag)},
        host_config={**_form(engine, folder), "NetworkMode": network.name, "ExtraHosts": everyone},
        networking_config=networking,
    )
    return engine.client.containers.get(made["Id"])


def _start(container: Container, node: Node, folder: Folder) -> None:
    container.reload()
    if container.status == "paused":
        container.unpause()
    elif container.status != "running":
        if container.status == "created":
            container.put_archive("/", pack(_belongings(node, folder)))
        container.start()


def _belongings(node: Node, folder: Folder) -> Mapping[str, Entry]:
    """What makes an image this node: its host key, who may log in, and the operator's password."""
    host = keys.host_key(folder, node.name)
    authorized = f"{keys.public_key(keys.private_key(folder.user_key))} runbook lab\n".encode()
    files = {
        "etc/ssh/ssh_host_ed25519_key": Entry(host, 0o600),
        "etc/ssh/ssh_host_ed25519_key.pub": Entry(f"{keys.public_key(host)}\n".encode(), 0o644),
        "root/passwords": Entry(f"operator:{keys.operator_password(folder)}\n".encode(), 0o600),
    }
    for home, owner in (("root", 0), ("home/operator", 1000), ("home/deploy", 1001)):
        files[f"{home}/.ssh"] = Entry(None, 0o700, owner)
        files[f"{home}/.ssh/authorized_keys"] = Entry(authorized, 0o600, owner)
    return files


def _await_answer(container: Container, node: Node) -> None:
    """Wait until a node has booted and its SSH port answers."""

    def state() -> str | None:
        container.reload()
        if container.status != "running":
            return container.status
        return "answers" if _answers(node) else None

    try:
        outcome = until(state, seconds=60)
    except TimeoutError:
        raise LabError(
            f"{node.name} runs, but {node.address}:22 does not answer from here",
            "the engine's network must be reachable from this machine (an engine in a virtual machine's is not)",
        ) from None
    if outcome != "answers":
        said = engines.last_line(container.logs(tail=20).decode(errors="replace"))
        raise LabError(f"{node.name} has {outcome} while booting: {said}", f"docker logs {node.container}")
    container.exec_run(["timeout", "60", "systemctl", "is-system-running", "--wait"])


def _answers(node: Node) -> bool:
    try:
        with socket.create_connection((node.address, 22), timeout=2) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _demand_memory(nodes: int) -> None:
    """LabError where this machine has too little memory for `nodes` more nodes."""
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024
    if available < nodes * MEMORY:
        needed = nodes * MEMORY
        raise LabError(
            f"{nodes} nodes need {needed / 1024**3:.1f} GB of memory, and {available / 1024**3:.1f} are available",
            "free some, or ask for fewer: --nodes 1",
        )


def _remove(engine: Engine, folder: Folder) -> int:
    containers = _containers(engine, folder)
    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(lambda container: container.remove(force=True, v=True), containers))
    for network in engine.client.networks.list(filters={"label": f"{LABEL}={folder.id}"}):
        network.remove()
    return len(containers)

"""The nodes of a lab: containers that boot like machines, on a network of their own with no way out.

`up` makes what is missing, starts what is stopped and leaves alone what is right; each step can be repeated, so a run
that was killed is mended by the next one. A node whose image or shape is not the wanted one is made anew.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
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
from docker.types import Mount
from filelock import FileLock, Timeout

from runbook.errors import LabError
from runbook.lab import engine as engines
from runbook.lab import image, images, keys, network, parameters, rpms
from runbook.lab import profile as profiles
from runbook.lab.archive import Entry, digest, pack
from runbook.lab.engine import Engine, Output, Progress
from runbook.lab.folder import Folder, site_file
from runbook.lab.profile import Profile
from runbook.lab.waiting import until

LABEL = "runbook.lab"
SHAPE = "runbook.lab.shape"

FIRST = 11
LIMIT = 20
"""Nodes on one network: .11 to .30 of its 32 addresses."""

BOOT = 180
"""Seconds that a node may take to boot; 1 is usual, on a machine that does nothing else."""

MEMORY = 640 * 1024**2
"""Bytes that a node with all roles needs, Docker and its containers included: 560 MB were measured on average."""

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
    `current` whether `image` is what `up` would make the node of, `profile` what is laid over the image.
    """

    node: Node
    state: str
    ssh: bool
    started: str
    image: str
    current: bool
    profile: Profile


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
        with _at_work(self.folder):
            container = self._container(node)
            _start(container, node, self.folder, Profile.of(container.labels).files())

    def reset(self, node: Node) -> None:
        """Make a node anew, as it first came: nothing installed, nothing configured. Its keys stay the same."""
        with _at_work(self.folder):
            container = self._container(node)
            net, _ = network.ensure(self.engine, self.folder)
            profile, image_tag = Profile.of(container.labels), container.attrs["Config"]["Image"]
            files = profile.files()
            container.remove(force=True, v=True)
            _start(_create(self.engine, self.folder, node, net, image_tag, profile), node, self.folder, files)

    def _container(self, node: Node) -> Container:
        try:
            return self.engine.client.containers.get(node.container)
        except NotFound:
            raise LabError(f"{node.name} is gone", "run `runbook lab up`") from None


def up(
    nodes: int = 3,
    packages: Path | None = None,
    progress: Progress = lambda stage: None,
    profile: str | None = None,
    shell: Path | None = None,
) -> Lab:
    """Bring up a lab of `nodes` nodes and describe it in the parameter file.

    What is there and right is left alone; nodes beyond that number are removed. RPMs in the folder `packages` (else the
    one that RUNBOOK_LAB_PACKAGES names) take the place of the lab's own of the same names. `profile` (else
    RUNBOOK_LAB_PROFILE, else centos7) is what the nodes are like, `shell` (else RUNBOOK_LAB_SHELL) a program for their
    /bin/sh; a node of another profile is recreated. `progress` is called with each stage's name as it begins. LabError
    where it cannot work, with what is missing.
    """
    if not 1 <= nodes <= LIMIT:
        raise LabError(f"a lab has 1 to {LIMIT} nodes, not {nodes}")
    folder, target = Folder.default(), site_file()
    if packages is None and "RUNBOOK_LAB_PACKAGES" in os.environ:
        packages = Path(os.environ["RUNBOOK_LAB_PACKAGES"])
    likeness = Profile(profile or os.environ.get("RUNBOOK_LAB_PROFILE") or profiles.DEFAULT, _shell(shell))
    files = likeness.files()
    with _at_work(folder), contextlib.ExitStack() as undo:
        engine = engines.ensure(folder, progress)
        undo.callback(engine.client.close)
        tag = image.ensure(engine, folder, progress)
        repository = rpms.ensure(engine, tag, folder, packages, progress)
        archives = images.ensure(engine, folder, progress)
        if network.is_taken(engine, folder):
            _remove(engine, folder)
        net, subnet = network.ensure(engine, folder)
        members = _members(folder, subnet, nodes)
        addresses = {node.name: node.address for node in members}
        keys.private_key(folder.user_key)
        keys.operator_password(folder)  # before the nodes, which are made at once and all need it
        keys.password(folder.mysql_password)
        keys.password(folder.mysql_root_password)
        keys.write_known_hosts(folder, addresses)
        progress("starting the nodes")
        _ensure_nodes(engine, folder, members, net, tag, likeness, files)
        image.prune(engine, folder)
        parameters.save(parameters.document(addresses, repository, archives, folder, target), target)
        undo.pop_all()
    return Lab(engine, folder, members, target)


def _shell(given: Path | None) -> Path | None:
    if given is None and (named := os.environ.get("RUNBOOK_LAB_SHELL")):
        given = Path(named)
    return given.absolute() if given else None


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
        ssh, profile = running and _answers(node), Profile.of(container.labels)
        states.append(NodeStatus(node, container.status, ssh, started, tag, tag == wanted, profile))
    return tuple(states)


def down(*, everything: bool = False, progress: Progress = lambda stage: None) -> int:
    """Stop and remove the nodes with their data and network; the number of nodes that there were.

    With `everything` also the images and their archives, the packages, the keys, the parameter file, and the engine
    that the lab started, with its data. An engine that the lab did not start keeps running, and keeps all that is not
    the lab's.
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
            with contextlib.closing(engine.client):
                if everything:
                    _demand_no_guests(engine, folder)
                progress("removing the nodes")
                count = _remove(engine, folder)
                if everything:
                    images.remove(engine, folder)
                    image.remove(engine, folder)
        if everything:
            progress("removing the engine and its data")
            engines.remove(folder)
            keys.remove(folder)
            rpms.remove(folder)
            site_file().unlink(missing_ok=True)
    return count


def _demand_no_guests(engine: Engine, folder: Folder) -> None:
    """LabError where somebody would lose containers, were the lab's own engine to go with its data."""
    if not engine.ours and folder.engine_config.exists():
        raise LabError("DOCKER_HOST names another engine than the lab's own", "unset it, and repeat the command")
    present = engine.client.containers.list(all=True, ignore_removed=True) if engine.ours else []
    guests = [str(container.name) for container in present if container.labels.get(LABEL) != folder.id]
    if guests:
        raise LabError(f"others have containers on the lab's engine: {', '.join(guests)}", "remove those first")


@contextlib.contextmanager
def _at_work(folder: Folder) -> Iterator[None]:
    """Wait until no other command changes this lab, and keep others from it; what the engine refuses is a LabError."""
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.lock, timeout=engines.LONG):
            yield
    except PermissionError as error:
        raise LabError(
            f"the lab belongs to another user: {error.filename} is not accessible",
            "run the command as that user, or set RUNBOOK_LAB_DIR and RUNBOOK_LAB_SITE to files of your own",
        ) from error
    except DockerException as error:
        remedy = f"read {folder.engine_log}" if folder.engine_log.exists() else "read the engine's log"
        raise LabError(f"the Docker engine of the lab refused: {error}", remedy) from error
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
    found = engine.client.containers.list(all=True, ignore_removed=True, filters={"label": f"{LABEL}={folder.id}"})
    return sorted(found, key=lambda container: int(container.attrs["Config"]["Hostname"].removeprefix("node")))


def _ensure_nodes(
    engine: Engine,
    folder: Folder,
    nodes: Sequence[Node],
    net: Network,
    tag: str,
    profile: Profile,
    files: Mapping[str, Entry],
) -> None:
    present = {str(container.name): container for container in _containers(engine, folder)}
    missing = [node for node in nodes if node.container not in present or present[node.container].status != "running"]
    demand_memory(len(missing), Path("/proc/meminfo").read_text())
    for name in present.keys() - {node.container for node in nodes}:
        present[name].remove(force=True, v=True)

    def settle(node: Node) -> None:
        container = present.get(node.container)
        if container is not None:
            wanted = _shape(engine, folder, node, net, tag, files)
            if container.labels.get(SHAPE) != wanted or container.status in ("dead", "removing"):
                container.remove(force=True, v=True)
                container = None
        _start(container or _create(engine, folder, node, net, tag, profile), node, folder, files)

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


def _shape(engine: Engine, folder: Folder, node: Node, net: Network, tag: str, files: Mapping[str, Entry]) -> str:
    """Names what a node is made of, its keys and its profile's files included: one of another shape is recreated."""
    parts = [tag, str(net.id), json.dumps(_form(engine, folder), sort_keys=True)]
    return digest([*(part.encode() for part in parts), pack(_belongings(node, folder)), pack(files)])


def capabilities(status: str) -> list[str]:
    """The capabilities in the bounding set of /proc/PID/status: all that can be given to a container from here.

    A kernel may withhold some from all of the lab; asking for one of those makes the container fail to start, so
    `--privileged` is no way.
    """
    line = next(line for line in status.splitlines() if line.startswith("CapBnd:"))
    bounding = int(line.split()[1], 16)
    return [name for number, name in enumerate(CAPABILITIES) if bounding >> number & 1]


def _create(engine: Engine, folder: Folder, node: Node, net: Network, tag: str, profile: Profile) -> Container:
    """Make the container of a node. It is given its keys before its first start, see `_start`."""
    subnet = ipaddress.IPv4Network((node.address, network.PREFIX), strict=False)
    everyone = [f"{other.name}:{other.address}" for other in _members(folder, subnet, LIMIT)]
    api = engine.client.api
    networking: Any = {"EndpointsConfig": {net.name: api.create_endpoint_config(ipv4_address=node.address)}}
    made = api.create_container(
        tag,
        name=node.container,
        hostname=node.name,
        labels={LABEL: folder.id, SHAPE: _shape(engine, folder, node, net, tag, profile.files()), **profile.labels},
        host_config={**_form(engine, folder), "NetworkMode": net.name, "ExtraHosts": everyone},
        networking_config=networking,
    )
    return engine.client.containers.get(made["Id"])


def _start(container: Container, node: Node, folder: Folder, files: Mapping[str, Entry]) -> None:
    """Start a node, if it does not run, and wait until it answers. One that runs but is silent is restarted."""
    container.reload()
    if container.status == "created":
        container.put_archive("/", pack({**files, **_belongings(node, folder)}))
    if container.status == "paused":
        container.unpause()
        container.reload()
    if container.status == "running":
        try:
            until(lambda: _answers(node), seconds=10)
        except TimeoutError:
            container.restart(timeout=10)
    else:
        container.start()
    _await_answer(container, node)


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
        outcome = until(state, seconds=BOOT)
    except TimeoutError:
        raise LabError(
            f"{node.name} runs, but {node.address}:22 does not answer from here",
            "the engine's network must be reachable from this machine (an engine in a virtual machine's is not)",
        ) from None
    if outcome != "answers":
        said = engines.last_line(container.logs(tail=20).decode(errors="replace"))
        raise LabError(f"{node.name} has {outcome} while booting: {said}", f"docker logs {node.container}")
    container.exec_run(["timeout", str(BOOT), "systemctl", "is-system-running", "--wait"])


def _answers(node: Node) -> bool:
    try:
        with socket.create_connection((node.address, 22), timeout=2) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def demand_memory(nodes: int, meminfo: str) -> None:
    """LabError where a machine, by its /proc/meminfo, has too little memory for `nodes` more nodes."""
    fields = dict(line.split(":") for line in meminfo.splitlines())
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
    network.remove(engine, folder)
    return len(containers)

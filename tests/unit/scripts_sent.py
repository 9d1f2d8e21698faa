"""Every sh text that the product can send to a host, made by the code that sends it.

`collected` makes them: the probes and change scripts of all steps of all chapters for several sites, every question,
what goes with an upload, and whole scripts as they are framed. That none is missing is shown from the source: every
class of steps is among the steps, every call of `Hosts.run` has an entry in `questions`, and every string that is sh is
found in what was made (`strings_of_sh`).
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn, cast

import pandas as pd
import pytest

import runbook
from runbook.remote import session, steps
from runbook.remote.containers import Container, Image
from runbook.remote.hosts import Hosts
from runbook.remote.labels import ContainerFolder
from runbook.remote.modes import Mode
from runbook.remote.shell import Piece, compose, heredoc, question
from runbook.remote.steps import Change, Command, CommandService, Package, Rpm, Service, Step, Upload, sha256
from runbook.remote.units import Report, SafePaths
from runbook.secrets import Secret
from runbook.services import leftovers, syslog, zookeeper, zookeeper_diagnosis
from runbook.services.docker import daemon, engine, images, ps
from runbook.services.docker import diagnose as docker_diagnose
from runbook.services.flags import FlagDaemon
from runbook.services.marathon import chapter as marathon_chapter
from runbook.services.marathon import drill
from runbook.services.marathon import steps as marathon_steps
from runbook.services.mesos import chapter as mesos_chapter
from runbook.services.mesos import forecast, logs
from runbook.services.mesos import steps as mesos_steps
from runbook.services.mesos.diagnose import REGISTRATION
from runbook.services.mesos.slave_info import Difference
from runbook.services.mysql import app as mysql_app
from runbook.services.mysql import client as mysql_client
from runbook.services.mysql import diagnosis as mysql_diagnosis
from runbook.services.mysql import drift as mysql_drift
from runbook.services.mysql import host as mysql_host
from runbook.services.overview import chapter as overview
from runbook.services.overview import preflight
from runbook.services.registry import chapter as registry_chapter
from runbook.services.registry import diagnose as registry_diagnose
from runbook.services.registry import garbage, transfer, trust
from runbook.services.registry import steps as registry_steps
from runbook.services.registry.certificate import Certificate
from runbook.services.registry.manifests import Descriptor, Manifest
from runbook.services.registry.trust import Trust
from runbook.services.registry_web import container as web_container
from runbook.services.registry_web import diagnose as web_diagnose
from runbook.site import Site

PACKAGE = Path(runbook.__file__).parent
PRODUCTION = PACKAGE.parent / "parameters" / "production.yml"
MARKER = f"runbook-{'0' * 24}"
"""The word that frames the scripts made here."""
ID = "3fcc29f52928" + "0" * 52
ADDRESS = "10.142.233.154:8600"


# sites


def site(*changes: tuple[str, str]) -> Site:
    """production.yml with these texts in the place of others."""
    text = PRODUCTION.read_text()
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return Site.parse(text, PRODUCTION)


VARIANTS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "production": (),
    "another user, and a version of Docker": (
        ("become: none", "become: sudo"),
        ("become_password: null", "become_password: env:RUNBOOK_SUDO"),
        ("version: null # null: the newest", "version: 1.11.1-1.el7.centos # null: the newest"),
        ("cluster: null", "cluster: it's a cluster"),
        ("libprocess_port: null", "libprocess_port: 9190"),
        ("http_port: 8080", "http_port: 8280"),
    ),
    "tls, users and a later Marathon": (
        ("security: insecure", "security: tls"),
        ("tls: null", "tls: {certificate: c.pem, key: k.pem, ca: ca.pem}"),
        ("user: null # with tls", "user: deploy # with tls"),
        ("password: null # a reference to its", "password: env:RUNBOOK_REGISTRY # a reference to its"),
        ("variables: host_port", "variables: url"),
        ("version: 1.1.1-1.0.472.el7", "version: 1.5.0-1.el7"),
    ),
}
SECRETS = ("RUNBOOK_MYSQL_PASSWORD", "RUNBOOK_MYSQL_ROOT_PASSWORD", "RUNBOOK_SUDO", "RUNBOOK_REGISTRY")
"""The variables that these sites' secrets are in."""


# steps and their changes


def _trusts() -> Iterator[Trust]:
    """Hosts on which Docker has its insecure registries from one place or the other."""
    known = {"installed": True, "pid": 77, "version": "1.11.1", "command": "/usr/bin/docker daemon -H fd://"}
    yield Trust(**known)  # type: ignore[arg-type]
    yield Trust(**known, listed=("a:1",), told=("a:1",), ca="0" * 64, added=("b:2",))  # type: ignore[arg-type]
    yield Trust(**known, flags=("a:1",), sources=("/etc/sysconfig/docker",))  # type: ignore[arg-type]
    yield Trust(problem="no answer")


def steps_of(site: Site) -> Iterator[Step]:
    """The steps of all chapters, for all hosts of a site."""
    certificate = Certificate(b"chain", b"key", b"ca") if site.registry.security == "tls" else None
    tls = certificate is not None
    yield from syslog.steps(site)
    yield from zookeeper.connection_file(site)
    yield from zookeeper.settings(site)
    yield zookeeper.service(site)
    yield replace(zookeeper.service(site), running=False)
    yield from mesos_steps.install(site)
    yield mesos_steps.quorum(site)
    yield from mesos_steps.master_settings(site)
    yield mesos_steps.master_service(site, "restart-master", "a master is away")
    for program in (mesos_steps.MASTER, mesos_steps.SLAVE):
        yield mesos_steps.FlagFolder(program)
        yield from mesos_steps.drift(site, program)
        yield from mesos_steps.off(program, "it is gone")
    yield mesos_steps.Forget("/var/lib/mesos", "1-S0", (Difference("port", "1", "2"),), ("t",))
    yield mesos_steps.NoLeftovers(("/var/lib/mesos", "/tmp/mesos"))
    yield marathon_steps.install(site)
    yield marathon_steps.ConfFolder()
    yield from marathon_steps.drift(site)
    for host in site.hosts:
        yield from zookeeper.identity(site, host)
        yield from zookeeper.settings(site, host)
        yield from mesos_steps.identity(site, host)
        yield from mesos_steps.slave_settings(site, host, docker=True)
        yield mesos_steps.slave_service(site, host)
        yield from marathon_steps.settings(site, host)
        yield marathon_steps.service(site, host)
        yield from images.steps(site, host)
    yield engine.install(site)
    yield engine.service(site)
    yield from engine.drift(site)
    yield from mysql_app.preparation(site)
    yield mysql_app.retired_files(site)
    yield registry_steps.image(site)
    yield from registry_steps.container_steps(site, certificate)
    yield registry_steps.container(site, read_only=True, note="read-only")
    for one in _trusts():
        for mode in (Mode.PLAN, Mode.APPLY):
            yield from trust.steps(site, one, mode, b"ca")
    for untagged in (False, True):
        yield garbage.Collection(site.registry.container, untagged)
    yield web_container.image(site)
    yield web_container.container(site)
    if not tls:
        yield Command("a command of its own", "[ -e /run/x ]", "touch /run/x\n")
        yield Container("other", "x:1", environment={"A": Secret("secret")}, volumes={"/opt/x": "/x"}, command=("a b",))
        yield Service("x", restart_if_newer=("/etc/x",))
        yield CommandService("x", ("/opt/x", "up"), ("/opt/x", "down"), "/run/x.pid", "x.jar", folder="/opt/a b")
        yield FlagDaemon("x", flags=mesos_steps.flag_source(mesos_steps.MASTER))
        yield mesos_steps.Daemon("x", package="x")


ABSENT, PRESENT = "absent", sha256(b"as it was")


def _container(*actions: str) -> Change:
    return Change("", observed=ID, actions=actions)


CHANGES: Mapping[type[Step], tuple[Change, ...]] = {
    steps._FileStep: tuple(Change("", content=b"content\n", observed=observed) for observed in (ABSENT, PRESENT)),
    steps.Absent: (Change("remove"),),
    steps.Directory: (Change("create"),),
    Package: (Change("install"),),
    Rpm: (Change("", actions=("install",)), Change("", actions=("replace",))),
    Service: tuple(
        Change("", actions=actions)
        for actions in (("enable", "start"), ("disable", "stop"), ("restart",), ("enable", "restart"), ("reload",))
    ),
    CommandService: tuple(Change("", actions=actions) for actions in (("start",), ("stop",), ("stop", "start"))),
    Command: (Change("run"),),
    Image: (Change("", actions=("load",)), Change("once Docker answers")),
    Container: (
        Change("once Docker answers"),
        _container("create"),
        _container("replace"),
        _container("update"),
        _container("update", "start"),
        _container("unpause"),
        _container("rename"),
        _container("clear", "rename", "update"),
        _container("rename", "replace"),
    ),
    mesos_steps._Held: (Change(""),),
    mesos_steps.FlagFolder: (Change("", actions=("quorum.rpmnew", "it's one")),),
    mesos_steps.ListFlag: (
        Change("remove, or write", observed=PRESENT, content=b"content\n"),
        Change("", actions=(f"{PRESENT} ports", "absent cpus", f"{PRESENT} it's one")),
    ),
    mesos_steps.Forget: (Change("", observed="1-S0"),),
    mesos_steps.NoLeftovers: (
        Change("", actions=("12:1-S0", "mesos-1-S0.x")),
        Change("", actions=("12:1-S0",)),
        Change("", actions=("mesos-1-S0.x",)),
    ),
    marathon_steps.ConfFolder: (Change("", actions=("zk.rpmsave",)),),
    mysql_app.RetiredSecrets: (Change("remove"),),
    Report: (),
    SafePaths: (Change("", actions=("mode /etc/x", "owner /etc/it's one")),),
    ContainerFolder: (Change("label it for containers"),),
    registry_steps.HasRead: (Change("restart"),),
    garbage.Collection: (Change("remove"),),
}
"""The changes that a kind of steps can have, with regard to the scripts that come of them."""


def changes_of(step: Step) -> Iterator[Change]:
    """The changes that this step can have. Raises LookupError for a kind without an entry in CHANGES."""
    for kind in type(step).__mro__:
        if kind in CHANGES:
            yield from CHANGES[kind]
            break
    else:
        raise LookupError(f"{type(step).__name__} has no entry in CHANGES: write which changes it can have")
    if type(step).script is steps.File.script:
        yield Change("set mode and owner", observed=PRESENT)


# questions


class _Asked(Exception):
    """Ends a call at its question."""


@dataclass
class _Fleet:
    """Stands for hosts: whatever is asked of them ends the call."""

    site: Site
    mode: Mode = Mode.APPLY
    sent: list[str] = field(default_factory=list)

    def only(self, *_: str) -> _Fleet:
        return self

    def having(self, _: str) -> _Fleet:
        return self

    def __iter__(self) -> Iterator[Any]:
        return iter(self.site.hosts)

    def run(self, script: str, **_: Any) -> NoReturn:
        self.sent.append(script)
        raise _Asked


def asked(site: Site, call: Callable[[Hosts], Any]) -> str:
    """What the hosts are asked by a call."""
    fleet = _Fleet(site)
    with pytest.raises(_Asked):
        call(cast(Hosts, fleet))
    return fleet.sent[0]


def questions(site: Site) -> Mapping[str, Callable[[], str]]:
    """What each call of `Hosts.run` in the package asks, by where it stands."""
    address, (host, *_) = site.registry_address or "", site.hosts
    digest = f"sha256:{'a' * 64}"
    manifest = Manifest("library/x", "", digest, b"", Descriptor("", digest, 1), (Descriptor("", digest, 1),))
    running = pd.DataFrame([("node1", "t.1", ID)], columns=["host", "task", "id"])
    account = mysql_client.Account("root", Secret("secret"))
    page = web_container.Seen(host, "registry-web", inspected={"State": {"Running": True, "Pid": 12}})
    mesos = {"package": "mesos", "program": "mesos-master"}
    return {
        "services.overview.preflight._ask": lambda: "".join(
            f"(\n{preflight.question(site, one)})\n" for one in site.hosts
        ),
        "services.docker.daemon.of": lambda: asked(site, daemon.of),
        "services.docker.diagnose.explain": lambda: asked(site, lambda hosts: docker_diagnose.explain(site, hosts)),
        "services.docker.engine.restart_gently": lambda: asked(site, lambda hosts: engine.restart_gently(hosts, ())),
        "services.docker.engine.units": lambda: asked(site, lambda hosts: engine.units(site, hosts)),
        "services.docker.engine.said": lambda: asked(site, engine.said),
        "services.docker.images.table": lambda: asked(site, lambda hosts: images.table(site, hosts)),
        "services.docker.ps.containers": lambda: asked(site, ps.containers),
        "services.docker.ps.table": lambda: asked(site, lambda hosts: ps.table(hosts, None)),
        "services.docker.ps.logs": lambda: asked(site, lambda hosts: ps.logs(hosts, "node1", ID)),
        "services.docker.ps.last_lines": lambda: asked(site, lambda hosts: ps.last_lines(hosts, running)),
        "services.marathon.chapter.MarathonChapter.installed": lambda: marathon_chapter._VERSIONS.format(
            package="marathon"
        ),
        "services.marathon.chapter.MarathonChapter.lost_hosts": lambda: ":",
        "services.marathon.drill.Victim.crash": lambda: asked(
            site, drill.Victim("hello.1", "node1", ("a" * 64, "b" * 64)).crash
        ),
        "services.mesos.chapter.MesosChapter._versions": lambda: mesos_chapter._VERSIONS.format(**mesos),
        "services.mesos.forecast.forecasts": lambda: forecast.probe_of(site),
        "services.mesos.logs.links": lambda: asked(
            site, lambda hosts: logs.links(hosts, site.syslog.log_dir, "mesos-master")
        ),
        "services.mesos.logs.last_lines": lambda: asked(
            site, lambda hosts: logs.last_lines(hosts, site.syslog.log_dir, ("mesos-master",), 5)
        ),
        "services.mesos.logs.milestones": lambda: asked(
            site, lambda hosts: logs.milestones(hosts, site.syslog.log_dir, "mesos-slave", REGISTRATION)
        ),
        "services.mesos.logs.explain": lambda: asked(site, lambda hosts: logs.explain(hosts, "mesos-slave")),
        "services.mesos.slaves.registration": lambda: logs.milestones_probe("/var/log", "mesos-slave", REGISTRATION),
        "services.mysql.chapter.MySql.retire": lambda: mysql_app.leaks_probe(site),
        "services.mysql.chapter.MySql._inside": lambda: mysql_client.exec_script(ID, 3306, account, ("mysql", "x")),
        "services.mysql.chapter.MySql._drill": lambda: f"docker kill {ID}",
        "services.mysql.drift.judged": lambda: mysql_drift.question(ID),
        "services.leftovers.table": lambda: leftovers.question(site),
        "services.mysql.diagnosis.of_containers": lambda: mysql_diagnosis.log_script(ID),
        "services.mysql.host.DataHost.ask": lambda: asked(site, mysql_host.DataHost.ask),
        "services.overview.chapter.Overview.software": lambda: overview.question(site),
        "services.overview.chapter.Overview._addresses": lambda: (
            'hostname; ip -o -4 addr | awk \'{ sub("/.*", "", $4); print $4 }\''
        ),
        "services.registry.chapter.RegistryChapter.log": lambda: (
            "! command -v docker >/dev/null || docker logs --tail 8 registry 2>&1 | cut -c 1-300"
        ),
        "services.registry.chapter.RegistryChapter._up": lambda: registry_chapter._INSPECT.format(name="registry"),
        "services.registry.chapter.RegistryChapter._explained": lambda: registry_chapter._JOURNAL,
        "services.registry.diagnose.diagnose": lambda: (
            registry_diagnose.LISTENERS + registry_diagnose._INSPECT.format(name="registry")
        ),
        "services.registry.garbage.dry_run": lambda: garbage._dry_run(site, untagged=True),
        "services.registry.garbage._demand_wanted": lambda: asked(site, garbage._demand_wanted),
        "services.registry.transfer.reached": lambda: asked(site, transfer.reached),
        "services.registry.transfer.on_disk": lambda: asked(
            site, lambda hosts: [*transfer.on_disk(hosts, manifest, "1")]
        ),
        "services.registry.transfer.round_trip": lambda: transfer._there_and_back(site, "x:1", f"{address}/x:1"),
        "services.registry.transfer._taken": lambda: asked(
            site, lambda hosts: transfer._taken(hosts, "x:1", f"{address}/x:1", "x", "1")
        ),
        "services.registry.transfer.pulled": lambda: transfer._pull(site, f"{address}/x@{digest}"),
        "services.syslog.delivered": lambda: asked(site, lambda hosts: syslog.delivered(site, hosts)),
        "services.registry.trust.of": lambda: asked(site, lambda hosts: trust.of(hosts, address)),
        "services.registry_web.container.look": lambda: asked(
            site, lambda hosts: web_container.look(hosts, "registry-web")
        ),
        "services.registry_web.diagnose.ask": lambda: web_diagnose.registry_question(8600),
        "services.registry_web.diagnose._ask_page": lambda: web_diagnose.page_question(page, 8400, ("10.0.0.1", 8600)),
        "services.zookeeper.ZooKeeper.logs": lambda: zookeeper._LAST_LINES.format(folder="/var/log", lines=5),
        "services.zookeeper.ZooKeeper._ask_running": lambda: zookeeper.running_question(site),
        "services.zookeeper.ZooKeeper._is_back": lambda: zookeeper.service(site).probe(),
        "services.zookeeper.ZooKeeper._diagnose": lambda: zookeeper_diagnosis.probe(site),
    }


def _rotation(site: Site) -> str:
    """What logrotate runs: sh as well, and not by us."""
    return "# postrotate\n" + syslog.rotation(site).partition("postrotate\n")[2].partition("endscript")[0]


# all of it


def collected() -> dict[str, str]:
    """Every script by what it is, each text once. The variables of SECRETS must be set."""
    made: dict[str, str] = {}
    for name, changes in VARIANTS.items():
        parameters = site(*changes)
        for step in steps_of(parameters):
            made[f"{name}: probe of {type(step).__name__}: {step.label}"] = question(step.probe())
            for change in changes_of(step):
                what = " ".join(change.actions) or f"{change.summary} {change.observed[:12]}".strip()
                made[f"{name}: {what} of {type(step).__name__}: {step.label}"] = step.script(change)
        for where, make in questions(parameters).items():
            made[f"{name}: question of {where}"] = question(make())
        made[f"{name}: rotation"] = _rotation(parameters)
    upload = Upload(Path("/srv/an image.tar"), "0" * 64, steps.artifact_path("0" * 64, "an image.tar"))
    made["placing"] = session.placing(upload, "/root/.cache/runbook/x")
    made["what was uploaded so far"] = "sha256sum < /root/.cache/runbook/x"
    exclusive = session._EXCLUSIVE.format(state=steps.STATE_DIR, lock=session.LOCK, seconds=5, busy=session._BUSY)
    pieces = [
        Piece("change", f"base64 -d {heredoc(b'x')}", must_succeed=True),
        Piece("probe", question("docker ps"), short=True),
    ]
    made["frame"] = compose(pieces, MARKER, f"RUNBOOK_BACKUP=/x\n{exclusive}")
    made["sudo"] = session._SUDO_TEXT
    unique = {text: name for name, text in reversed(made.items())}
    return {name: text for text, name in reversed(unique.items())}


def framed(text: str) -> str:
    """A script as it goes over the wire."""
    return compose([Piece("0", text, short=True), Piece("1", text, must_succeed=True)], MARKER)


# that none is missing


def modules() -> Iterator[tuple[str, ast.Module]]:
    """The package's modules by name without `runbook.`, but for the lab, whose scripts run on its own images."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        if not name.startswith("lab"):
            yield name, ast.parse(path.read_text())


def kinds() -> set[type[Step]]:
    """Every class of steps of which there are steps."""
    for module in pkgutil.walk_packages(runbook.__path__, "runbook."):
        if not module.name.startswith("runbook.lab"):
            importlib.import_module(module.name)

    def below(kind: type[Step]) -> Iterator[type[Step]]:
        for one in kind.__subclasses__():
            yield one
            yield from below(one)

    return {one for one in below(Step) if not inspect.isabstract(one) and one.__module__.startswith("runbook.")}


NO_HOSTS = frozenset({"preflight", "subprocess", "running", "action"})
"""What has a `run` of its own in the package and is no hosts."""


def calls(name: str) -> set[str]:
    """Where `Hosts.run` (or another name) is called."""
    found = set()

    def visit(node: ast.AST, place: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = f"{place}.{child.name}" if isinstance(child, ast.FunctionDef | ast.ClassDef) else place
            if isinstance(child, ast.Call):
                called = child.func
                if isinstance(called, ast.Attribute) and called.attr == name:
                    if ast.unparse(called.value) not in NO_HOSTS:
                        found.add(place)
                elif isinstance(called, ast.Name) and called.id == name:
                    found.add(place)
            visit(child, inner)

    for module, tree in modules():
        visit(tree, module)
    return found


_SH = re.compile(
    r"""(?mx)
    \$\( | \$\{\{?\w | (?:^|[^\d])2>(?:&1|/dev) | >/dev/null | >&2 | \|\|\s | \s&&\s | ;;\s | \besac\b | "\$\w
    | ^\s*(?:if|while|until)\s.*;\s*(?:then|do)\b | ^\s*(?:for)\s\w+\sin\s.*;\s*do\b | ^\s*(?:fi|done)\s*$
    | ^(?:set\ -e|exec\ |trap\ |printf\ |echo\ ) | ^(?:systemctl|rm|mv|cp|mkdir|base64|chcon)\s-?\w+.*\n
    """
)


def strings_of_sh() -> Iterator[tuple[str, int, str]]:
    """Every string in the package that looks like sh and is no docstring: its module, line and text, \\0 for values."""
    for module, tree in modules():
        if module.partition(".")[0] in ("views", "rollout"):
            continue
        documented = {
            id(first.value)
            for node in ast.walk(tree)
            for body in [getattr(node, "body", ())]
            if isinstance(body, list)
            for first in body
            if isinstance(first, ast.Expr)
        }
        inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)} - {
            id(node) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
        }
        for node in ast.walk(tree):
            if id(node) in documented or id(node) in inner:
                continue
            if isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else "\0" for p in node.values]
                text = "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
            else:
                continue
            if _SH.search(text):
                yield module, node.lineno, text


def parts(text: str) -> Iterator[list[str]]:
    """The lines of a string that have no place for a value: as it stands, and as `str.format` would leave it."""
    readings = [text]
    try:
        found = string.Formatter().parse(text)
        readings.append("".join(literal + ("" if name is None else "\0") for literal, name, _, _ in found))
    except ValueError:
        pass  # braces that `str.format` would refuse: it is not handed to it
    for reading in readings:
        yield [line for line in re.split(r"[\n\0]", reading) if len(line.strip()) > 3]

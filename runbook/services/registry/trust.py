"""Whom the Docker of each host trusts as a registry, and the steps that make it trust the site's (document 7.2).

Docker takes `insecure-registries` from /etc/docker/daemon.json, or `--insecure-registry` from its command line. **Given
in both it does not start** ('the following directives are specified both as a flag and in the configuration file'). So
where the command line of a host's unit has the flag already (a packaged unit that was edited as the document does it,
a drop-in, a variable of /etc/sysconfig/docker), the registry is added there, by a drop-in of ours that repeats the
command with one flag more; anywhere else it is added to daemon.json. Entries of others stay, in either place; where
both have the key, those of daemon.json move to the drop-in.

With `security: tls` a host gets the site's CA as /etc/docker/certs.d/HOST:PORT/ca.crt instead, which Docker reads at
every connection, and the registry is taken off the insecure ones: for those Docker verifies no certificate.

From 17.06 on, dockerd takes daemon.json's list over on SIGHUP, and no container is stopped. Before, and for its command
line, it must be restarted.

Sources: dockerd's reference ('Daemon configuration file', 'Configuration reload behavior'), 'Test an insecure registry'
and 'Verify repository client with certificates' of Docker's documentation; systemd.unit(5), systemd.exec(5).
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from runbook.errors import StepFailed
from runbook.remote.hosts import Hosts
from runbook.remote.json_file import JsonMembers
from runbook.remote.modes import Mode
from runbook.remote.probes import values
from runbook.remote.shell import Facts, facts, quote
from runbook.remote.steps import Absent, Change, Directory, File, Step, sha256
from runbook.services.docker import daemon, engine
from runbook.services.docker.daemon import SETTINGS, DaemonState, decoded
from runbook.services.mesos.steps import Daemon
from runbook.site import Site
from runbook.views.tables import Table
from runbook.wording import plural

KEY = "insecure-registries"
FLAG = "--insecure-registry"
ADDED = "RUNBOOK_INSECURE_REGISTRIES"
"""The variable by which the drop-in of ours adds flags to the unit's command, so that both can be told apart."""
DROPIN = daemon.REGISTRY_DROP_IN
CERTIFICATES = "/etc/docker/certs.d"
_FOLDER = str(PurePosixPath(DROPIN).parent)
_SHELLS = frozenset({"sh", "bash", "dash"})
_LOOPBACK = frozenset({"127.0.0.0/8", "::1/128"})  # which Docker trusts by itself

BOM = (23, 0)
"""The first version that reads a daemon.json with a byte order mark."""
RELOADS = (17, 6)
"""The first version that takes a changed list of insecure registries over without a restart."""


@dataclass(frozen=True)
class Trust(DaemonState):
    """Whom one host's Docker trusts: as its unit says it (without the drop-in of ours), as daemon.json does, and as the
    daemon itself does.

    `command`: the unit's ExecStart as it is written; `flags`: the insecure registries that it names once systemd has
    put the variables in; `sources`: the files that have the flag; `added`: those that the drop-in of ours names beyond
    them, None without one; `listed`: those of daemon.json, None where it has no such key; `told`: those that the
    running daemon names, None where it does not tell (before 1.13, or it does not run); `arguments`: those of its
    command line; `by_shell`: the unit runs it through a shell, which has flags of its own to put in; `ca`: the SHA-256
    of the registry's CA there.
    """

    command: str = ""
    flags: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    added: tuple[str, ...] | None = None
    overridden_by: str = ""
    listed: tuple[str, ...] | None = None
    settings_file: str = SETTINGS
    told: tuple[str, ...] | None = None
    arguments: tuple[str, ...] = ()
    by_shell: bool = False
    ca: str = ""

    @classmethod
    def _fields(cls, text: str) -> dict[str, Any]:
        found = facts(text)
        unit = Unit.read(text)
        listed = daemon.settings_of(found).get(KEY)
        return super()._fields(text) | {
            "command": unit.command,
            "flags": insecure(unit.words),
            "sources": unit.sources,
            "added": None if unit.ours is None else insecure(unit.ours.split()),
            "overridden_by": unit.later,
            "listed": tuple(map(str, listed)) if isinstance(listed, list) else None,
            "settings_file": _option(unit.words, "--config-file") or SETTINGS,
            "told": _told(found.get("registries", "")),
            "arguments": insecure(daemon.arguments_of(found)),
            "by_shell": PurePosixPath("".join(unit.words[:1])).name in _SHELLS,
            "ca": found.get("ca", ""),
        }

    @property
    def by_flags(self) -> bool:
        """Whether the place for the trust is the command line."""
        return bool(self.flags)

    @property
    def unclear(self) -> bool:
        """Whether it cannot be told what the command line holds: a shell puts the flag in, if anything does."""
        return self.by_shell and bool(self.sources)

    @property
    def reloads(self) -> bool:
        """Whether the daemon takes a change of daemon.json over without a restart, and its client can show that."""
        return self.told is not None and version_of(self.version) >= RELOADS

    @property
    def effective(self) -> tuple[str, ...]:
        """The insecure registries of the running daemon; before 1.13, what its command line and its file say."""
        if self.told is not None:
            return self.told
        return tuple(dict.fromkeys((*self.arguments, *(self.listed or ()))))


@dataclass(frozen=True)
class Unit:
    """The unit of Docker as its files give it, without the drop-in of ours.

    `command`: the last ExecStart, on one line; `variables`: the environment that it may use; `sources`: which files
    name the flag; `ours`: the flags that our drop-in adds, None without one; `later`: a drop-in that sets ExecStart and
    comes after ours, so that ours is without effect.
    """

    command: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    ours: str | None = None
    later: str = ""

    @classmethod
    def read(cls, output: str) -> Unit:
        """The lines `unit=BASE64 PATH` and `environment=BASE64 PATH` of the probe, those that win first."""
        fragment: dict[str, str] = {}
        dropins: dict[str, tuple[str, str]] = {}
        for line in values(output, "unit"):
            content, _, path = line.partition(" ")
            name = PurePosixPath(path).name
            if name == "docker.service":
                if not fragment:
                    fragment[path] = decoded(content)
            else:
                dropins.setdefault(name, (path, decoded(content)))
        ours = PurePosixPath(DROPIN).name
        files = {**fragment, **{path: text for name, (path, text) in sorted(dropins.items()) if name != ours}}
        command, variables = "", dict[str, str]()
        for text in files.values():
            for key, value in _assignments(text):
                if key == "ExecStart":
                    command = value
                elif key == "Environment":
                    variables |= _variables([value])
        for line in values(output, "environment"):
            content, _, path = line.partition(" ")
            files[path] = decoded(content)
            variables |= _variables(files[path].splitlines())
        later = [
            path
            for name, (path, text) in sorted(dropins.items())
            if name > ours and any(key == "ExecStart" and value for key, value in _assignments(text))
        ]
        sources = tuple(path for path, text in files.items() if FLAG in _uncommented(text))
        own = None
        if ours in dropins:
            own = _variables(value for key, value in _assignments(dropins[ours][1]) if key == "Environment").get(
                ADDED, ""
            )
        return cls(command, variables, sources, own, later[-1] if later else "")

    @property
    def words(self) -> tuple[str, ...]:
        """The command's words, with the variables put in as systemd does: `$X` becomes words, `${X}` a part of one."""
        words: list[str] = []
        for word in _split(self.command):
            if whole := re.fullmatch(r"\$(\w+)", word):
                words += self.variables.get(whole[1], "").split()
            else:
                words.append(re.sub(r"\$\{(\w+)\}", lambda match: self.variables.get(match[1], ""), word))
        return tuple(words)


def insecure(words: Sequence[str]) -> tuple[str, ...]:
    """The insecure registries that a command line of dockerd names, each once."""
    found = []
    for position, word in enumerate(words):
        if match := re.fullmatch(r"--?insecure-registry(?:=(.*))?", word):
            found.append(match[1] if match[1] is not None else "".join(words[position + 1 : position + 2]))
    return tuple(dict.fromkeys(filter(None, found)))


def covers(entry: str, address: str) -> bool:
    """Whether an entry of the insecure registries means the registry at `address` (HOST:PORT): it is that, or a network
    in CIDR that its address lies in. A host without its port means ports 80 and 443 only."""
    entry = re.sub(r"^https?://", "", entry).rstrip("/")
    if entry == address:
        return True
    try:
        return "/" in entry and ipaddress.ip_address(address.rpartition(":")[0]) in ipaddress.ip_network(entry, False)
    except ValueError:
        return False


def trusts(entries: Iterable[str], address: str) -> bool:
    """Whether any of these entries means the registry."""
    return any(covers(entry, address) for entry in entries)


def version_of(text: str) -> tuple[int, ...]:
    """The first two numbers of a version; () where there are none."""
    match = re.match(r"\D*(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else ()


# asking


def of(hosts: Hosts, address: str) -> dict[str, Trust]:
    """Whom each of these hosts trusts, asked at once. A host that does not answer has its `problem` told."""
    script = daemon.PROBE + _PROBE.format(ca=quote(f"{CERTIFICATES}/{address}/ca.crt"))
    return {host: Trust.read(output) for host, output in hosts.run(script).items()}


_PROBE = """\
for d in /etc/systemd/system /run/systemd/system /usr/lib/systemd/system /lib/systemd/system; do
  for f in "$d/docker.service" "$d"/docker.service.d/*.conf; do
    [ -f "$f" ] || continue
    echo "unit=$(content "$f") $f"
    sed -n 's/^EnvironmentFile=-\\{{0,1\\}}//p' "$f" | while read -r e; do
      [ -f "$e" ] && echo "environment=$(content "$e") $e"
    done
  done
done
s=$(sha256sum < {ca} 2>/dev/null) && echo "ca=${{s%% *}}"
case $unit in (*ActiveState=active*)
  echo "registries=$(docker info -f '{{{{json .RegistryConfig}}}}' 2>/dev/null)"
esac
exit 0
"""


# the steps


def steps(site: Site, trust: Trust, mode: Mode, ca: bytes = b"") -> Sequence[Step]:
    """What makes a host's Docker trust the site's registry, from what was found there; `ca` is the site's, for tls.

    A plan begins with Docker's package, so that it can say what follows where there is none yet. A host is left
    untouched, and fails, of which nothing could be found out, or not where its Docker has its settings from.
    """
    address = site.registry_address
    if address is None:
        return ()
    if trust.problem or trust.settings_file != SETTINGS:
        return (docker(site, address, trust),)
    if trust.unclear:
        return (*(certificate(address, ca) if site.registry.security == "tls" else ()), docker(site, address, trust))
    foreseen = (engine.install(site),) if mode is Mode.PLAN else ()
    if site.registry.security == "tls":
        own = (*certificate(address, ca), *insecurely(address, trust, wanted=False))
    else:
        own = (*insecurely(address, trust, wanted=True), *_without_ca(address, trust))
    return (*foreseen, *own, docker(site, address, trust))


def certificate(address: str, ca: bytes) -> tuple[Step, ...]:
    """The site's CA where Docker looks for that of this registry."""
    folder = f"{CERTIFICATES}/{address}"
    return Directory(folder), File(f"{folder}/ca.crt", ca)


def insecurely(address: str, trust: Trust, *, wanted: bool) -> tuple[Step, ...]:
    """The registry among the insecure ones, in the one place that the host's Docker can have them; or not among them.

    Entries of others are kept, and come along where the place changes. What our drop-in names of the registry's host at
    another port was the registry's earlier address, and goes.
    """
    bom = version_of(trust.version) >= BOM
    listed = trust.listed or ()
    moved = [entry for entry in trust.added or () if not _same_host(entry, address)]
    if not trust.by_flags:
        if wanted and not trusts((*listed, *moved), address):
            moved.append(address)
        excluded = () if wanted else (address,)
        included = [entry for entry in moved if entry not in excluded]
        if not wanted and trust.listed is None and trust.reloads and trusts(trust.told or (), address):
            # The key, or the file, was removed without a restart: a daemon that finds no key at a reload keeps its list
            # (moby, daemon/reload.go: `if conf.IsValueSet("insecure-registries")`).
            return JsonMembers(SETTINGS, {KEY: []}, bom=bom), *_without_dropin(trust)
        members = JsonMembers(SETTINGS, included={KEY: tuple(included)}, excluded={KEY: excluded}, bom=bom)
        return members, *_without_dropin(trust)
    members = JsonMembers(SETTINGS, {KEY: None}, bom=bom)
    missing = [
        entry for entry in dict.fromkeys((*listed, *moved)) if entry not in trust.flags and (wanted or entry != address)
    ]
    if wanted and not trusts((*trust.flags, *missing), address):
        missing.append(address)
    if not missing:
        return members, *_without_dropin(trust)
    return members, Directory(_FOLDER), File(DROPIN, dropin(trust.command, missing))


def _without_dropin(trust: Trust) -> tuple[Step, ...]:
    return () if trust.added is None else (Absent(DROPIN),)


def _without_ca(address: str, trust: Trust) -> tuple[Step, ...]:
    return (Absent(f"{CERTIFICATES}/{address}/ca.crt"),) if trust.ca else ()


def dropin(command: str, entries: Iterable[str]) -> str:
    """The drop-in that repeats the unit's command with further insecure registries."""
    flags = " ".join(f"{FLAG} {entry.replace('%', '%%')}" for entry in entries)
    return (
        f"# Written by the runbook (7.2): changes made here are lost. The unit's own command, which has {FLAG}\n"
        "# already, with more of them: in daemon.json as well they would keep Docker from starting.\n"
        f'[Service]\nEnvironment="{ADDED}={flags}"\nExecStart=\nExecStart={command} ${ADDED}\n'
    )


def docker(site: Site, address: str, trust: Trust) -> Docker:
    """A Docker that runs with the trust."""
    return Docker(
        engine.UNIT,
        enabled=None,
        restart_if_newer=(SETTINGS, DROPIN, _FOLDER),  # the folder tells of a drop-in that went
        gate=engine.RESTART if trust.stopped else None,
        consequence=(
            f"the restart ends {plural(len(trust.stopped), 'container')}: {', '.join(map(str, trust.stopped))}. Those "
            "with the restart policy always or unless-stopped come back with Docker, Marathon starts its tasks anew"
        ),
        package=site.docker.package,
        own_drop_ins=(DROPIN,),
        allowed_drop_ins=site.docker.allowed_drop_ins,
        registry=address,
        secure=site.registry.security == "tls",
        trust=trust,
    )


@dataclass(frozen=True)
class Docker(Daemon):
    """Docker's service, restarted or (where that is enough) told to read daemon.json anew until the daemon itself
    names the registry among the insecure ones; with `secure`, until it does not.

    Where the daemon does not tell (before 1.13), the times of the files decide, as for any service, and its command
    line.
    """

    registry: str = field(kw_only=True)
    secure: bool = field(kw_only=True, default=False)
    trust: Trust = field(kw_only=True, default=Trust())

    def probe(self) -> str:
        return (
            f"{super().probe()}case $unit in (*ActiveState=active*)\n"
            "  echo \"registries=$(docker info -f '{{json .RegistryConfig}}' 2>/dev/null)\"\nesac\n"
            f"{_PROBE_REMOVED.format(file=SETTINGS, folder=SETTINGS.rpartition('/')[0])}"
        )

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        self._refuse()
        change = super().plan(state, pending)
        if change is None or change.summary != "restart" or not self._reloads(pending):
            return change
        return replace(change, summary="reload", actions=("reload",), gate=None, consequence="")

    def script(self, change: Change) -> str:
        if change.actions != ("reload",):
            return super().script(change)
        entry = next((one for one in self.trust.listed or () if covers(one, self.registry)), self.registry)
        try:
            entry = str(ipaddress.ip_network(entry, strict=False))  # as Docker tells a network, whatever host names it
        except ValueError:
            entry = self.registry  # and a registry without the scheme that it may be given with
        return _RELOAD.format(wanted="!" if self.secure else "", entry=quote(f'"{entry}"'))

    def _stale(self, present: Facts, state: str, pending: frozenset[str]) -> list[str]:
        told = _told(present.get("registries", ""))
        if told is None:
            return super()._stale(present, state, pending) or self._outrun(present) or self._removed(present)
        changing = [path for path in self.restart_if_newer if path in pending]
        if changing or trusts(told, self.registry) is not self.secure:
            return changing
        return [DROPIN if self.trust.by_flags else SETTINGS]

    def _outrun(self, present: Facts) -> list[str]:
        """The files by which a daemon that does not tell would have another command line than it runs with."""
        runs = trusts(self.trust.arguments, self.registry)
        differs = runs if self.secure else self.trust.by_flags and not runs
        if not differs or present["MainPID"] != str(self.trust.pid):  # another process than the one that was looked at
            return []
        return [*self.trust.sources] or ["its unit"]

    def _removed(self, present: Facts) -> list[str]:
        """daemon.json where it was removed after the start of a daemon that does not tell whom it trusts."""
        if not (self.secure and {"removed", "ticks"} <= present.keys()):
            return []
        age = float(present["uptime"]) - int(present["ticks"]) / int(present["hertz"])
        began = float(present["now"]) - age
        return [f"{SETTINGS} (a file was removed from its folder)"] if float(present["removed"]) > began else []

    def _reloads(self, pending: frozenset[str]) -> bool:
        """Whether what differs is in daemon.json alone, and the daemon reads that anew."""
        return self.trust.reloads and not self.trust.by_flags and DROPIN not in pending and not self.trust.arguments

    def _refuse(self) -> None:
        trust = self.trust
        if trust.problem:
            raise StepFailed(
                f"whom Docker trusts here was not found out: {trust.problem}",
                "see that the host and its Docker answer, then run again: nothing was touched",
            )
        if trust.unclear and trusts(trust.effective, self.registry) is self.secure:
            raise StepFailed(
                f"{FLAG} is in {', '.join(trust.sources)}, and the unit runs Docker through a shell: whether that puts "
                f"it in cannot be told, and given in {SETTINGS} as well it would keep Docker from starting",
                "have the unit run Docker itself (a drop-in with another ExecStart), then run again",
            )
        if trust.settings_file != SETTINGS:
            raise StepFailed(
                f"Docker reads {trust.settings_file} in the place of {SETTINGS}",
                "let its unit do without --config-file",
            )
        if self.secure and trusts(trust.flags, self.registry):
            raise StepFailed(
                f"{FLAG} in {', '.join(trust.sources)} means {self.registry}, and for an insecure registry Docker "
                "verifies no certificate",
                "take it out there, then run again",
            )
        if wide := [
            one for one in trust.listed or () if self.secure and one != self.registry and covers(one, self.registry)
        ]:
            raise StepFailed(
                f"{wide[0]} among the {KEY} of {SETTINGS} means {self.registry} as well, and for an insecure registry "
                "Docker verifies no certificate",
                "name the registries that are meant by it one by one, then run again",
            )
        if trust.overridden_by and trust.by_flags and not trusts(trust.flags, self.registry):
            raise StepFailed(
                f"{trust.overridden_by} sets ExecStart after {DROPIN}, which is then without effect",
                f"add {FLAG} {self.registry} there, or give it a name that sorts before runbook-registry.conf",
            )


# A folder whose last change is not that of any entry that is still there has lost one.
_PROBE_REMOVED = """\
if [ -d {folder} ] && ! [ -e {file} ]; then
  changed=$(stat -c %Y {folder})
  for f in {folder}/* {folder}/.[!.]* {folder}/certs.d/*; do
    if [ -e "$f" ]; then stat -c '%Y %Z' "$f"; fi
  done | awk -v m="$changed" '{{ for (i = 1; i <= 2; i++) if ($i - m >= -1 && $i - m <= 1) known = 1 }}
    END {{ exit known }}' && echo "removed=$changed"
fi
:
"""
_RELOAD = """\
systemctl kill -s HUP --kill-who=main docker || exit 1
told() {{ docker info -f '{{{{json .RegistryConfig}}}}' 2>/dev/null | grep -qF -e {entry}; }}
n=0
while ! {{ {wanted} told; }}; do
  n=$((n+1))
  [ $n -lt 50 ] || {{
    echo "Docker does not take its file over:" >&2; journalctl -q -o cat --no-pager -n 8 -u docker >&2; exit 1
  }}
  sleep 0.2
done
"""


# showing


def table(site: Site, found: Mapping[str, Trust], ca: bytes = b"") -> Table:
    """Whom each host's Docker trusts, and whether that is what the site wants of it."""
    address = site.registry_address or ""
    rows = [(host, *_row(site, trust, address, ca)) for host, trust in found.items()]
    columns = ["host", "Docker", f"trusts {address}", "by", "insecure registries", "worth knowing"]
    return Table(pd.DataFrame(rows, columns=columns), f"whom Docker trusts ({site.registry.security})", (columns[2],))


def judged(site: Site, trust: Trust, ca: bytes = b"") -> tuple[bool, str]:
    """Whether a host's running Docker trusts the site's registry as it should, and why, or why not."""
    address = site.registry_address or ""
    if trust.problem:
        return False, trust.problem
    if not trust.installed:
        return False, "Docker is not installed"
    if trust.pid is None:
        return False, "Docker does not run"
    insecurely = trusts(trust.effective, address)
    if site.registry.security == "insecure":
        if insecurely:
            return True, "insecure"
        written = trusts((*trust.flags, *(trust.added or ()), *(trust.listed or ())), address)
        return False, "not before Docker is restarted" if written else "no"
    if not trust.ca:
        return False, "its CA is missing"
    if trust.ca != sha256(ca):
        return False, "another CA is there"
    return (False, "as an insecure one, without a look at its certificate") if insecurely else (True, "by the CA")


def _row(site: Site, trust: Trust, address: str, ca: bytes) -> tuple[str, str, str, str, str]:
    good, why = judged(site, trust, ca)
    mark = "✓" if good else "✗" if trust.installed or trust.problem else "–"
    entries = [entry for entry in trust.effective if entry not in _LOOPBACK]
    if site.registry.security == "tls":
        places = [f"{CERTIFICATES}/{address}/ca.crt"] if trust.ca else []
    else:
        places = [*trust.sources] if trusts(trust.flags, address) else []
        places += [DROPIN] if trusts(trust.added or (), address) else []
        places += [SETTINGS] if trusts(trust.listed or (), address) else []
    notes = [f"{entry} is the same host with another port" for entry in entries if _same_host(entry, address)]
    if (trust.flags or trust.added) and trust.listed is not None:
        notes.append(f"{FLAG} and {KEY} in {SETTINGS}: Docker will not start again")
    return trust.version, f"{mark} {why}", "\n".join(places), ", ".join(entries), "\n".join(f"⚠ {one}" for one in notes)


def _same_host(entry: str, address: str) -> bool:
    """Whether an entry is the registry's host at another port."""
    return entry != address and entry.rpartition(":")[0] == address.rpartition(":")[0]


# reading


def _told(text: str) -> tuple[str, ...] | None:
    """The insecure registries in RegistryConfig of `docker info`; None where it tells none."""
    config = daemon.json_object(text)
    if not config:
        return None
    single = [name for name, one in (config.get("IndexConfigs") or {}).items() if one.get("Secure") is False]
    return (*single, *(config.get("InsecureRegistryCIDRs") or ()))


def _option(words: Sequence[str], name: str) -> str:
    for position, word in enumerate(words):
        if word == name:
            return "".join(words[position + 1 : position + 2])
        if word.startswith(f"{name}="):
            return word.removeprefix(f"{name}=")
    return ""


def _uncommented(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith(("#", ";")))


def _assignments(text: str) -> Iterable[tuple[str, str]]:
    """The assignments of a unit file's [Service] section, continued lines joined."""
    section = ""
    for line in re.sub(r"\\\n\s*", " ", _uncommented(text)).splitlines():
        if header := re.fullmatch(r"\s*\[(.+)\]\s*", line):
            section = header[1]
        elif section == "Service" and "=" in line:
            key, _, value = line.partition("=")
            yield key.strip(), value.strip()


def _variables(lines: Iterable[str]) -> dict[str, str]:
    """Assignments as systemd reads them in Environment= and in an EnvironmentFile."""
    words = (word for line in lines if not line.lstrip().startswith(("#", ";")) for word in _split(line))
    return dict(word.split("=", 1) for word in words if re.match(r"\w+=", word))


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # a quotation that does not end
        return text.split()

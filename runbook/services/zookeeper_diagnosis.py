"""Why a ZooKeeper does not start, or does not serve (document 1.3).

The document says: never kill it, and else "mend myid as the log says". That is doubtful: `zkServer.sh stop` is itself
`kill -9`, and a wrong myid is but one of the causes. So one question a host brings back what decides (`probe`), and a
pure function names the causes (`diagnose`). Nothing is touched and nothing is killed: the remedies are for people.

Sources: zkServer.sh of 3.4.6; FileTxnLog, FileSnap and QuorumPeerConfig of 3.4.6 and 3.8.0; what 3.8.0 wrote when each
of these was provoked (tests/payloads/zookeeper-3.8).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from runbook.remote.hosts import Output
from runbook.remote.shell import facts, quote
from runbook.services.findings import Finding, Findings
from runbook.services.probes import LISTENERS, Listener, ahead, listeners, shortened, timed, values
from runbook.services.zookeeper_ensemble import server_lines
from runbook.site import HostParameters, Site

PROCESS = "QuorumPeerMain"
"""What the command line of every ZooKeeper server holds."""

PREALLOCATED = 64 * 1024
"""Kilobytes that ZooKeeper reserves at once for a transaction log (preAllocSize): with less it cannot write one."""

SKEW = 5
"""Seconds by which clocks may surely differ, beyond what the time that the answers took leaves open."""

_LOG, _SNAPSHOT, _SNAPSHOT_END = "5a4b4c47", "5a4b534e", "000000012f"
"""How a transaction log (ZKLG) and a snapshot (ZKSN) begin, and how a complete snapshot ends: a string of length 1,
`/` (FileTxnLog.TXNLOG_MAGIC, FileSnap.SNAP_MAGIC, Util.isValidSnapshot), in hex."""


def pid_file(site: Site) -> str:
    """Where zkServer.sh writes the number of the process that it starts."""
    return f"{site.zookeeper.pid_dir}/zookeeper_server.pid"


_PROBE = r"""
conf={conf}; wanted={data}; logs={logs}; pids={pids}
grep -l '{process}' /proc/[0-9]*/cmdline 2>/dev/null | sed 's,/proc/\([0-9]*\).*,runs=\1,'
if [ -e "$pids" ]; then
  pid=$(head -c 20 "$pids" | tr -cd '0-9'); echo "pidfile=$pid"
  [ -n "$pid" ] && [ -d "/proc/$pid" ] && echo "pidprocess=$(command_of "$pid")"
fi
if [ -r "$conf/zoo.cfg" ]; then
  grep -Ev '^[[:space:]]*(#|$)' "$conf/zoo.cfg" | sed 's/^[[:space:]]*/cfg=/'
  data=$(sed -n 's/^[[:space:]]*dataDir[[:space:]]*[=:][[:space:]]*//p' "$conf/zoo.cfg" | tail -n 1)
else echo "nocfg=$conf/zoo.cfg"
fi
data=${{data:-$wanted}}
for d in "$data" "$conf"; do if [ -f "$d/myid" ]; then echo "myid=$d $(head -c 40 "$d/myid" | tr '\n' ' ')"; fi; done
if [ -d "$data" ]; then
  [ -w "$data" ] && echo writable=yes
  echo "owner=$(stat -L -c %U "$data")"
  (cd "$data/version-2" 2>/dev/null && ls -t | head -n 40) | while read -r f; do
    p=$data/version-2/$f
    case $f in (log.*|snapshot.*|*Epoch) ;; (*) continue;; esac
    begin=$(head -c 4 "$p" | od -An -v -tx1 | tr -d ' \n'); end=$(tail -c 5 "$p" | od -An -v -tx1 | tr -d ' \n')
    stat -c "file=$f %s %U ${{begin:--}} ${{end:--}}" "$p"
  done
else echo nodata=yes
fi
for d in "$data" "$logs"; do
  [ -d "$d" ] && df -Pk "$d" | awk -v d="$d" 'NR == 2 {{ print "disk=" $4, d }}'
  [ -d "$d" ] && df -Pi "$d" | awk -v d="$d" 'NR == 2 && $2 > 0 {{ print "inodes=" $4, d }}'
done
# what each log says of the last start, without what is for information only and without stack frames
for kind in log out; do
  f=$(ls -t "$logs"/*zookeeper*."$kind" 2>/dev/null | head -n 1)
  [ -n "$f" ] && tail -n 4000 "$f" | awk '
    /Reading configuration from/ {{ n = 0 }}
    / - (INFO|DEBUG) / || /^[ \t]+(at |\.\.\. )/ || !NF {{ next }}
    {{ line[n++] = substr($0, 1, 300) }}
    END {{ for (i = (n > 30 ? n - 30 : 0); i < n; i++) print "said=" line[i] }}'
done
:
"""


def probe(site: Site) -> str:
    """The sh text that prints what a diagnosis is made from. It reads, and changes nothing."""
    zookeeper = site.zookeeper
    asked = _PROBE.format(
        conf=quote(zookeeper.conf_dir),
        data=quote(zookeeper.data_dir),
        logs=quote(zookeeper.log_dir),
        pids=quote(pid_file(site)),
        process=f"[{PROCESS[0]}]{PROCESS[1:]}",  # a pattern that does not match grep's own command line
    )
    return timed(LISTENERS + asked)


@dataclass(frozen=True)
class DataFile:
    """A file of version-2: its name, size in bytes, owner, and first four and last five bytes in hex."""

    name: str
    size: int
    owner: str
    begin: str
    end: str

    def damage(self) -> str | None:
        """What is wrong with it, as far as its ends show."""
        if self.size == 0:
            return f"{self.name} is empty"
        if self.name.startswith("log.") and self.begin != _LOG:
            return f"{self.name} does not begin as a transaction log does"
        plain = self.name.startswith("snapshot.") and not self.name.endswith((".gz", ".snappy"))
        if plain and (self.begin != _SNAPSHOT or self.end != _SNAPSHOT_END):
            return f"{self.name} is not a whole snapshot"
        return None


@dataclass(frozen=True)
class Seen:
    """What one host answered to `probe`."""

    host: HostParameters
    output: Output

    @property
    def text(self) -> str:
        """What it printed."""
        return self.output.stdout

    @cached_property
    def fact(self) -> Mapping[str, str]:
        """The values that there is one of."""
        return facts(self.text)

    @cached_property
    def running(self) -> tuple[int, ...]:
        """The processes that are ZooKeeper servers."""
        return tuple(map(int, values(self.text, "runs")))

    @cached_property
    def config(self) -> dict[str, str]:
        """The settings of zoo.cfg."""
        pairs = (re.split(r"\s*[=:\s]\s*", line, maxsplit=1) for line in values(self.text, "cfg"))
        return {key: value.strip() for key, value in (pair for pair in pairs if len(pair) == 2)}

    @cached_property
    def servers(self) -> dict[str, str]:
        """Its list of members: `server.N` by name."""
        return {key: value for key, value in self.config.items() if re.fullmatch(r"server\.\d+", key)}

    @cached_property
    def myids(self) -> dict[str, str]:
        """The content of myid by the folder that it is in."""
        found = (line.partition(" ") for line in values(self.text, "myid"))
        return {folder: content.strip() for folder, _, content in found}

    @cached_property
    def files(self) -> tuple[DataFile, ...]:
        """The files of version-2, the youngest first."""
        rows = (line.rsplit(" ", 4) for line in values(self.text, "file"))
        return tuple(DataFile(name, int(size), owner, begin, end) for name, size, owner, begin, end in rows)

    @cached_property
    def listeners(self) -> tuple[Listener, ...]:
        """Who listens at which TCP port, as far as the host can tell."""
        return listeners(self.text) or ()

    @cached_property
    def said(self) -> tuple[str, ...]:
        """What the logs said since the last start, warnings and worse."""
        return values(self.text, "said")


def diagnose(site: Site, outputs: Mapping[str, Output], serving: frozenset[str]) -> Findings:
    """What keeps members from serving, from `outputs` of `probe` by host; `serving` are the members that do serve.

    What stands in logs counts only for a member that does not serve, and only where nothing better explains it.
    """
    hosts = {host.name: host for host in site.having("zookeeper")}
    seen = {name: Seen(hosts[name], output) for name, output in outputs.items() if output.ok}
    found: list[Finding] = []
    for name, output in outputs.items():
        if name not in seen:
            found.append(_unasked(name, output))
            continue
        here = seen[name]
        causes = [
            *_pid_file(site, here),
            *_configuration(site, here, seen),
            *_identity(site, here),
            *_data(site, here, len(serving) > len(hosts) // 2),
            *_ports(site, here),
            *_disk(here),
        ]
        if name not in serving:
            causes = causes or [*_said(here), *_waiting(site, here, seen), _unexplained(site, here)][:1]
        found += causes
    return Findings("ZooKeeper: what keeps members from serving", (*found, *_clocks(seen)))


# the causes


def _unasked(host: str, output: Output) -> Finding:
    said = output.error.message if output.error else output.stderr.strip()
    remedy = output.error.remedy if output.error else None
    return Finding(host, "the host could not be asked", said, remedy or "make it reachable, then ask again")


def _pid_file(site: Site, seen: Seen) -> Iterator[Finding]:
    host, path, pid = seen.host.name, pid_file(site), seen.fact.get("pidfile")
    process = seen.fact.get("pidprocess")
    if pid is not None and process is not None and PROCESS not in process:
        yield Finding(
            host,
            "stale pid file: another process has its number now",
            f"{path} holds {pid}, which is `{shortened(process) or '(a process of the kernel)'}`; `zkServer.sh start` "
            "takes it for ZooKeeper, says 'already running', exits 0 and starts nothing",
            f"rm {path}   (and no zkServer.sh stop or restart before: it would kill -9 that process)",
        )
    elif process is None and seen.running:
        yield Finding(
            host,
            "the pid file does not name the ZooKeeper that runs",
            f"process {seen.running[0]} is ZooKeeper, and {path} "
            + ("does not exist" if pid is None else f"holds {pid or 'nothing'}, which is gone")
            + ": zkServer.sh cannot stop it, and would start a second one beside it",
            f"echo {seen.running[0]} > {path}",
        )


def _configuration(site: Site, seen: Seen, everywhere: Mapping[str, Seen]) -> Iterator[Finding]:
    host, path = seen.host.name, f"{site.zookeeper.conf_dir}/zoo.cfg"
    if "nocfg" in seen.fact:
        yield Finding(host, "zoo.cfg is missing", f"{path} does not exist", "apply 2.2.2")
        return
    zookeeper = site.zookeeper
    wanted = server_lines(site)
    # 3.5 and later accept `:participant` and `;PORT` after what 3.4 knows
    have = {key: re.sub(r"(:participant)?(;.*)?$", "", value) for key, value in seen.servers.items()}
    wrong = [f"lacks {', '.join(sorted(wanted.keys() - have.keys()))}"] if wanted.keys() - have.keys() else []
    for key, value in have.items():
        if value != wanted.get(key):
            others = [name for name, one in everywhere.items() if one.servers.get(key) != seen.servers[key]]
            wrong.append(
                f"has {key}={value} and should have {wanted.get(key, 'none such')}"
                + (f" (as {', '.join(others)})" if others else "")
            )
    if wrong:
        evidence = f"{path} {'; '.join(wrong)}"
        yield Finding(host, "the list of members is wrong", evidence, "apply 2.2.2, then restart (1.2)")
    for key, value in {"dataDir": zookeeper.data_dir, "clientPort": str(zookeeper.client_port)}.items():
        if seen.config.get(key) != value:
            evidence = f"{path} has {key}={seen.config.get(key, '')}, the parameters say {value}"
            yield Finding(
                host, f"{key} differs from the parameters", evidence, "apply 2.2.2, or correct the parameters"
            )


def _identity(site: Site, seen: Seen) -> Iterator[Finding]:
    host, wanted = seen.host.name, str(seen.host.myid)
    data = seen.config.get("dataDir", site.zookeeper.data_dir)
    have = seen.myids.get(data)
    if "nodata" in seen.fact:
        return  # told by _data
    misplaced = seen.myids.get(site.zookeeper.conf_dir)
    remedy = f"apply 2.2.1 (echo {wanted} > {data}/myid), then start (1.2)"
    if have is None and misplaced is not None:
        evidence = (
            f"{site.zookeeper.conf_dir}/myid holds {misplaced}, and ZooKeeper reads {data}/myid, which is not there"
        )
        yield Finding(host, "myid is in the wrong folder", evidence, remedy)
    elif have is None:
        yield Finding(host, "myid is missing", f"{data}/myid does not exist", remedy)
    elif have != wanted:
        entry = seen.servers.get(f"server.{have}")
        whose = f"which is the member at {entry.split(':')[0]}" if entry else "which no server line of zoo.cfg has"
        evidence = f"{data}/myid holds {have or 'nothing'}, {whose}; this host is server.{wanted}"
        yield Finding(host, "myid is wrong", evidence, remedy)


def _data(site: Site, seen: Seen, quorum: bool) -> Iterator[Finding]:
    host, folder = seen.host.name, seen.config.get("dataDir", site.zookeeper.data_dir)
    if "nodata" in seen.fact:
        yield Finding(host, "the data folder is missing", f"{folder} does not exist", f"mkdir -p {folder}; apply 2.2.1")
        return
    if "writable" not in seen.fact:
        evidence = f"{folder} of {seen.fact.get('owner', '?')} cannot be written"
        yield Finding(
            host, "the data folder cannot be written", evidence, "see how its filesystem is mounted, and its owner"
        )
    owners = Counter(file.owner for file in seen.files)
    if len(owners) > 1:
        evidence = (
            f"files in {folder}/version-2 belong to {', '.join(sorted(owners))}: it was started by different users"
        )
        remedy = f"chown -R OWNER {folder}/version-2, for the user that ZooKeeper runs as"
        yield Finding(host, "data files have different owners", evidence, remedy)
    # An older snapshot may be damaged: ZooKeeper takes the youngest that is whole, and the logs from there on.
    snapshots = [file for file in seen.files if file.name.startswith("snapshot.")]
    damaged = [file for file in seen.files if file not in snapshots and file.damage()]
    if snapshots and all(file.damage() for file in snapshots):
        damaged += snapshots
    said = next((line for line in seen.said if re.search(_DAMAGED, line)), None)
    if damaged:
        evidence = "; ".join(str(file.damage()) for file in damaged) + f" (in {folder}/version-2){_last_word(seen)}"
        yield Finding(host, "the data on disk are damaged", evidence, _restore(folder, quorum))
    elif said and not seen.running:
        yield Finding(host, "the data on disk are damaged", f"the log says: {said}", _restore(folder, quorum))


_DAMAGED = r"CRC check failed|invalid magic number|No snapshot found, but there are log entries|Unreasonable length"


def _restore(folder: str, quorum: bool) -> str:
    aside = f"mv {folder}/version-2 {folder}/version-2.damaged"
    if quorum:
        return f"a quorum serves without it, so it can fetch everything from there: {aside}, then start (1.2)"
    return (
        "no quorum serves, so this may be the only copy of something: copy version-2 first; start the members whose "
        f"data are whole, and only once they serve: {aside}, then start (1.2)"
    )


def _ports(site: Site, seen: Seen) -> Iterator[Finding]:
    zookeeper = site.zookeeper
    for name in ("client_port", "quorum_port", "election_port"):
        port = getattr(zookeeper, name)
        for listener in seen.listeners:
            if listener.port == port and PROCESS not in listener.command:
                evidence = f"{listener} listens at port {port} (zookeeper.{name})"
                remedy = "stop it or move it to another port, then start ZooKeeper (1.2)"
                yield Finding(seen.host.name, "a port is taken by another process", evidence, remedy)


def _disk(seen: Seen) -> Iterator[Finding]:
    for line in dict.fromkeys(values(seen.text, "disk")):
        free, folder = line.split(" ", 1)
        if int(free) < PREALLOCATED:
            files = sum(file.size for file in seen.files) // (1 << 20)
            evidence = f"{int(free) // 1024} MB free at {folder}, a transaction log takes 64 MB (version-2: {files} MB)"
            remedy = "make room; old snapshots and logs go by zkCleanup.sh, or by autopurge.purgeInterval in zoo.cfg"
            yield Finding(seen.host.name, "the disk is full", evidence, remedy)
    for line in dict.fromkeys(values(seen.text, "inodes")):
        free, folder = line.split(" ", 1)
        if int(free) < 100:
            evidence = f"{free} inodes free at {folder}"
            yield Finding(seen.host.name, "the disk is full", evidence, "remove files (many small ones) on it")


_SAID = (
    (
        r"Cannot assign requested address",
        "its own server line names an address that the host does not have",
        "correct the host's address in the parameters, apply 2.2.2, then start (1.2)",
    ),
    (
        r"Address already in use",
        "a port is taken by another process",
        "nobody listens there now: start again (1.2)",
    ),
    (
        r"(java: (command )?not found|failed to run command .*java|JAVA_HOME is not set)",
        "Java is missing",
        "install Java, or set JAVA_HOME in ZooKeeper's java.env",
    ),
    (r"OutOfMemoryError", "ZooKeeper's memory is too small", "give it more: JVMFLAGS in java.env (-Xmx)"),
    (r"No space left on device", "the disk was full", "see that there is room now, then start again (1.2)"),
    (
        r"Unable to load database on disk|Found null in .*Epoch|(current|accepted)Epoch|the current epoch",
        "the data on disk do not fit together",
        "copy version-2 first; then, while a quorum serves without this host, move version-2 aside and start (1.2)",
    ),
    (
        r"Invalid config, exiting abnormally|ConfigException",
        "zoo.cfg is not understood",
        "read what the log says of it, and correct zoo.cfg",
    ),
)
"""What the log says, what it means, and what to do. The evidence is the line itself."""


def _said(seen: Seen) -> Iterator[Finding]:
    if seen.running:
        return
    for pattern, cause, remedy in _SAID:
        for line in seen.said:
            if re.search(pattern, line):
                yield Finding(seen.host.name, cause, f"the log says: {line}", remedy)
                break


def _waiting(site: Site, seen: Seen, everywhere: Mapping[str, Seen]) -> Iterator[Finding]:
    """A member that runs and does not serve waits for others: either too few run, or it cannot reach them."""
    if not seen.running:
        return
    running = [name for name, one in everywhere.items() if one.running]
    majority = len(site.having("zookeeper")) // 2 + 1
    if len(running) < majority:
        evidence = (
            f"only {', '.join(running)} of {majority} that a quorum takes {'runs' if len(running) == 1 else 'run'}"
        )
        yield Finding(seen.host.name, "too few members run", evidence, "start the others (1.2)")
        return
    ids = {str(one.host.myid): name for name, one in everywhere.items()}
    unreached = {match[1] for line in seen.said if (match := re.search(r"Cannot open channel to (\d+) at", line))}
    if names := [ids[one] for one in sorted(unreached) if ids.get(one) in running]:
        ports = f"{site.zookeeper.quorum_port} and {site.zookeeper.election_port}"
        evidence = f"it runs and its log says 'Cannot open channel' to {', '.join(names)}, where ZooKeeper runs as well"
        yield Finding(
            seen.host.name, "members cannot reach each other", evidence, f"open ports {ports} between the hosts"
        )


def _unexplained(site: Site, seen: Seen) -> Finding:
    host = seen.host.name
    if seen.running:
        evidence = f"process {seen.running[0]} runs and does not serve{_last_word(seen)}"
        return Finding(host, "not known", evidence, "read its log (1.2), from 'Reading configuration' on")
    if pid := seen.fact.get("pidfile"):
        return Finding(
            host,
            "stale pid file: its process is gone",
            f"{pid_file(site)} holds {pid}, and no such process lives: ZooKeeper ended without zkServer.sh stop ("
            f"it was killed, it crashed, or the host restarted){_last_word(seen)}",
            "start it (1.2), which writes a new pid file; should it end again, read its log",
        )
    return Finding(host, "ZooKeeper does not run", f"no such process{_last_word(seen)}", "start it (1.2)")


def _last_word(seen: Seen) -> str:
    return f"; the last that its log complains of: {seen.said[-1]}" if seen.said else ""


def _clocks(everywhere: Mapping[str, Seen]) -> Iterator[Finding]:
    """The middle of the least and the middle of the most that clocks are ahead by enclose the middle clock."""
    bounds = {name: ahead(seen.output) for name, seen in everywhere.items()}
    if not bounds:
        return
    least, most = (sorted(side)[len(bounds) // 2] for side in zip(*bounds.values(), strict=True))
    for name, (at_least, at_most) in bounds.items():
        for off, where in ((at_least - most, "ahead of"), (least - at_most, "behind")):
            if off > SKEW:
                evidence = f"{off:.0f} s {where} the other hosts"
                yield Finding(name, "the clock is off", evidence, "start chronyd or ntpd, and see that it is in step")

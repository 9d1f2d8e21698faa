"""Why a ZooKeeper does not start, or does not serve (document 1.3).

The document says: never kill it, and else "mend myid as the log says". That is doubtful: `zkServer.sh stop` is itself
`kill -9`, and a wrong myid is but one of the causes. So one question a host brings back what decides (`probe`), and a
pure function names the causes (`diagnose`). Nothing is touched and nothing is killed: the remedies are for people.

Sources: zkServer.sh of 3.4.6; FileTxnLog, FileSnap and QuorumPeerConfig of 3.4.6 and 3.8.0; what 3.8.0 wrote when each
of these was provoked (tests/payloads/zookeeper-3.8).
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from runbook.remote.hosts import Output
from runbook.remote.probes import (
    LISTENERS,
    OWN_NAMES,
    Listener,
    ahead,
    listeners,
    loopback_names,
    shortened,
    timed,
    values,
)
from runbook.remote.shell import facts, quote
from runbook.services.findings import Finding, Findings
from runbook.services.zookeeper_config import BOM, SETTING, ServerLine, ZooCfg, misfits, same_path
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


ENVIRONMENT = r"""
sed -n -e 's/^[[:space:]]*\(export[[:space:]]\{{1,\}}\)\{{0,1\}}ZOOPIDFILE=/zookeeper_env=ZOOPIDFILE /p' \
  -e 's/^[[:space:]]*\(export[[:space:]]\{{1,\}}\)\{{0,1\}}ZOO_LOG_DIR=/zookeeper_env=ZOO_LOG_DIR /p' \
  {conf}/zookeeper-env.sh 2>/dev/null
"""
"""Prints what zookeeper-env.sh sets of what zkServer.sh takes from it, in order."""


def moved(site: Site, text: str) -> Iterator[tuple[str, str, str]]:
    """Where zookeeper-env.sh sends ZooKeeper's pid file and logs elsewhere than the parameters say, by what ENVIRONMENT
    printed: the cause, the evidence and the hint. Ambari's sends them to /var/run/zookeeper and /var/log/zookeeper.

    A value with a variable in it is not judged. Source: zkEnv.sh and zkServer.sh of 3.4.6.
    """
    file, zookeeper = f"{site.zookeeper.conf_dir}/zookeeper-env.sh", site.zookeeper
    found = {}
    for line in values(text, "zookeeper_env"):
        name, _, value = line.partition(" ")
        found[name] = re.sub(r"""^(?:"([^"]*)"|'([^']*)'|([^\s#;]*)).*""", r"\1\2\3", value)
    pids, logs = found.get("ZOOPIDFILE", ""), found.get("ZOO_LOG_DIR", "")
    if pids and "$" not in pids and not _same_path(pids, pid_file(site)):
        folder, _, name = pids.rpartition("/")
        hint = f"set zookeeper.pid_dir to {folder}"
        if name != pid_file(site).rpartition("/")[2]:
            hint = f"let ZOOPIDFILE there be {pid_file(site)}"
        yield "zkServer.sh writes another pid file", f"{file} has ZOOPIDFILE={pids}, not {pid_file(site)}", hint
    if logs and "$" not in logs and not _same_path(logs, zookeeper.log_dir):
        evidence = f"{file} has ZOO_LOG_DIR={logs}, not {zookeeper.log_dir}"
        yield "ZooKeeper logs to another folder", evidence, f"set zookeeper.log_dir to {logs}"


def _same_path(one: str, other: str) -> bool:
    """Whether two paths are the same: /var/run is a link to /run."""
    return len({re.sub(r"^/var/run(?=/|$)", "/run", path.rstrip("/")) for path in (one, other)}) == 1


_DATA_FILES = r"""
data_files() {
  (cd "$1/version-2" 2>/dev/null && ls -t | head -n 40) | while read -r f; do
    p=$1/version-2/$f
    case $f in (log.*|snapshot.*|*Epoch) ;; (*) continue;; esac
    begin=$(head -c 4 "$p" | od -An -v -tx1 | tr -d ' \n'); end=$(tail -c 5 "$p" | od -An -v -tx1 | tr -d ' \n')
    stat -c "$2=$f %s %U ${begin:--} ${end:--}" "$p"
  done
}
"""

_PROBE = r"""
conf={conf}; wanted={data}; logs={logs}; pids={pids}
own_names {addresses}
grep -l '{process}' /proc/[0-9]*/cmdline 2>/dev/null | sed 's,/proc/\([0-9]*\).*,runs=\1,'
if [ -e "$pids" ]; then
  pid=$(head -c 20 "$pids" | tr -cd '0-9'); echo "pidfile=$pid"
  [ -n "$pid" ] && [ -d "/proc/$pid" ] && echo "pidprocess=$(command_of "$pid")"
  if [ -n "$pid" ] && grep -q '{process}' "/proc/$pid/cmdline" 2>/dev/null; then
    c=$(tr '\0' '\n' < "/proc/$pid/cmdline" | tail -n 1); f=$c; [ "${{c#/}}" != "$c" ] || f=/proc/$pid/cwd/$c
    [ "$(readlink -f "$f")" = "$(readlink -f "$conf/zoo.cfg")" ] || echo "runswith=$pid $c"
  fi
fi
data=; txns=
if [ -r "$conf/zoo.cfg" ]; then
  echo "cfg=$(head -c 262144 "$conf/zoo.cfg" | base64 | tr -d '\n')"
  data=$(setting dataDir "$conf/zoo.cfg"); [ -z "$data" ] || data=$(absolute "$data")
  txns=$(setting dataLogDir "$conf/zoo.cfg"); [ -z "$txns" ] || txns=$(absolute "$txns")
  f=$(setting dynamicConfigFile "$conf/zoo.cfg")
  if [ -n "$f" ]; then
    f=$(absolute "$f"); echo "dynamicfile=$f"
    [ -r "$f" ] && echo "dynamic=$(head -c 262144 "$f" | base64 | tr -d '\n')"
  fi
else echo "nocfg=$conf/zoo.cfg"
fi
data=${{data:-$wanted}}; txns=${{txns:-$data}}
echo "data=$data"; echo "txns=$txns"; echo "wanted=$wanted"
echo "data_at=$(resolve "$data")"; echo "txns_at=$(resolve "$txns")"; echo "wanted_at=$(resolve "$wanted")"
for d in "$data" "$conf"; do if [ -f "$d/myid" ]; then echo "myid=$d $(head -c 40 "$d/myid" | tr '\n' ' ')"; fi; done
if [ -d "$data" ]; then
  [ -w "$data" ] && echo writable=yes
  echo "owner=$(stat -L -c %U "$data")"
  data_files "$data" file
else echo nodata=yes
fi
if [ "$(resolve "$txns")" != "$(resolve "$data")" ]; then
  if [ -d "$txns" ]; then data_files "$txns" txnfile; else echo notxns=yes; fi
fi
for d in "$data" "$txns" "$logs"; do
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
        addresses=" ".join(quote(host.address) for host in site.having("zookeeper")),
        process=f"[{PROCESS[0]}]{PROCESS[1:]}",  # a pattern that does not match grep's own command line
    )
    asked = ENVIRONMENT.format(conf=quote(zookeeper.conf_dir)) + asked
    return timed(LISTENERS + OWN_NAMES + SETTING + _DATA_FILES + asked)


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
    def zoo_cfg(self) -> ZooCfg:
        """Its zoo.cfg, with the members of the dynamic file, if it names one that can be read."""
        static = ZooCfg.parse(base64.b64decode(self.fact.get("cfg", "")))
        dynamic = self.fact.get("dynamic")
        return static.joined(ZooCfg.parse(base64.b64decode(dynamic)) if dynamic is not None else None)

    @property
    def config(self) -> dict[str, str]:
        """The settings of zoo.cfg."""
        return self.zoo_cfg.values

    @property
    def servers(self) -> dict[str, str]:
        """Its list of members: `server.N` by name."""
        return self.zoo_cfg.servers

    @property
    def data(self) -> str:
        """The data folder that it reads, as zoo.cfg has it."""
        return self.fact.get("data", "")

    @property
    def same_data_dir(self) -> bool:
        """Whether zoo.cfg's dataDir is the folder of the parameters, however it is written."""
        if "dataDir" not in self.config:
            return False
        here, wanted = self.fact["data_at"], self.fact["wanted_at"]
        return here == wanted if here and wanted else same_path(self.data, self.fact["wanted"])

    @property
    def client_port(self) -> str:
        """The port that clients connect to: zoo.cfg's, or that of its own entry in the dynamic file."""
        own = ServerLine.parse(self.servers.get(f"server.{self.host.myid}", ""))
        given = str(own.client_port) if own is not None and own.client_port is not None else ""
        return self.config.get("clientPort", given)

    @property
    def txns(self) -> str:
        """The folder of its transaction logs: another one only where zoo.cfg has dataLogDir."""
        return self.fact.get("txns", "")

    @cached_property
    def myids(self) -> dict[str, str]:
        """The content of myid by the folder that it is in."""
        found = (line.partition(" ") for line in values(self.text, "myid"))
        return {folder: content.strip() for folder, _, content in found}

    @cached_property
    def files(self) -> tuple[DataFile, ...]:
        """The files of version-2, the youngest first."""
        return self._files("file")

    @cached_property
    def txn_files(self) -> tuple[DataFile, ...]:
        """The files of dataLogDir's version-2, where that is another folder."""
        return self._files("txnfile")

    def _files(self, key: str) -> tuple[DataFile, ...]:
        rows = (line.rsplit(" ", 4) for line in values(self.text, key))
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
            *(Finding(name, *one) for one in moved(site, here.text)),
            *_pid_file(site, here),
            *_configuration(site, here, seen),
            *_identity(site, here),
            *_other_file(site, here),
            *_names(here),
            *_data(site, here, len(serving) > len(hosts) // 2),
            *_ports(site, here),
            *_disk(here),
        ]
        if name not in serving:
            others = (*_said(site, here), *_waiting(site, here, seen), *_misplaced(here))
            causes = causes or [*others, _unexplained(site, here)][:1]
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
    if seen.zoo_cfg.text.startswith(BOM):
        evidence = f"{path} begins with EF BB BF, so that ZooKeeper does not know the setting in its first line"
        yield Finding(host, "zoo.cfg begins with a byte order mark", evidence, "apply 2.2.2, then restart (1.2)")
    place, remedy = path, "apply 2.2.2, then restart (1.2)"
    if seen.zoo_cfg.dynamic_file is not None:
        place, remedy = seen.fact["dynamicfile"], "change the members by `zkCli.sh reconfig`, or correct the parameters"
        if "dynamic" not in seen.fact:
            evidence = f"{path} names {place} (dynamicConfigFile), which cannot be read"
            yield Finding(
                host, "the dynamic file is missing", evidence, "restore it from another member, then start (1.2)"
            )
            return
    wrong = []
    differing = misfits(seen.servers, server_lines(site), zookeeper.client_port)
    if missing := sorted(key for key, (have, _) in differing.items() if not have):
        wrong.append(f"lacks {', '.join(missing)}")
    for key, (have, wanted) in differing.items():
        if have:
            others = [name for name, one in everywhere.items() if one.servers.get(key) != have]
            wrong.append(
                f"has {key}={have} and should have {wanted or 'none such'}"
                + (f" (as {', '.join(others)})" if others else "")
            )
    if wrong:
        yield Finding(host, "the list of members is wrong", f"{place} {'; '.join(wrong)}", remedy)
    if not seen.same_data_dir:
        evidence = f"{path} has dataDir={seen.config.get('dataDir', '')}, the parameters say {zookeeper.data_dir}"
        yield Finding(host, "dataDir differs from the parameters", evidence, "apply 2.2.2, or correct the parameters")
    port = seen.client_port
    if port != str(zookeeper.client_port):
        evidence = f"{path} has clientPort={port}, the parameters say {zookeeper.client_port}"
        yield Finding(
            host, "clientPort differs from the parameters", evidence, "apply 2.2.2, or correct the parameters"
        )


def _other_file(site: Site, seen: Seen) -> Iterator[Finding]:
    """A ZooKeeper that was started with another zoo.cfg: what is written into the parameters' has no effect on it."""
    for line in values(seen.text, "runswith"):
        pid, _, path = line.partition(" ")
        evidence = f"process {pid} was started with {path}, the parameters say {site.zookeeper.conf_dir}/zoo.cfg"
        remedy = "set zookeeper.conf_dir to the folder that zkServer.sh uses (ZOOCFGDIR), or restart it by 1.2"
        yield Finding(seen.host.name, "ZooKeeper runs with another zoo.cfg", evidence, remedy)


def _names(seen: Seen) -> Iterator[Finding]:
    """A member that is called by name binds its ports to the address that its own host has for that name."""
    for name, address, line in loopback_names(seen.text):
        if name == seen.host.address:
            evidence = (
                f"/etc/hosts line {line} maps {name} to {address}: ZooKeeper binds its quorum and election ports "
                "there, where no other member reaches them"
            )
            remedy = f"take {name} out of that line, map it to the host's address, then restart (1.2)"
            yield Finding(seen.host.name, "its own name is the loopback", evidence, remedy)


def _identity(site: Site, seen: Seen) -> Iterator[Finding]:
    host, wanted = seen.host.name, str(seen.host.myid)
    data = seen.data
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
    host, folder = seen.host.name, seen.data
    if "nodata" in seen.fact:
        yield Finding(host, "the data folder is missing", f"{folder} does not exist", f"mkdir -p {folder}; apply 2.2.1")
        return
    if "writable" not in seen.fact:
        evidence = f"{folder} of {seen.fact.get('owner', '?')} cannot be written"
        yield Finding(
            host, "the data folder cannot be written", evidence, "see how its filesystem is mounted, and its owner"
        )
    files = (*seen.files, *seen.txn_files)
    owners = Counter(file.owner for file in files)
    if len(owners) > 1:
        evidence = (
            f"files in {folder}/version-2 belong to {', '.join(sorted(owners))}: it was started by different users"
        )
        remedy = f"chown -R OWNER {folder}/version-2, for the user that ZooKeeper runs as"
        yield Finding(host, "data files have different owners", evidence, remedy)
    # An older snapshot may be damaged: ZooKeeper takes the youngest that is whole, and the logs from there on.
    snapshots = [file for file in seen.files if file.name.startswith("snapshot.")]
    damaged = [file for file in files if not file.name.startswith("snapshot.") and file.damage()]
    if snapshots and all(file.damage() for file in snapshots):
        damaged += snapshots
    said = next((line for line in seen.said if re.search(_DAMAGED, line)), None)
    if damaged:
        evidence = "; ".join(str(file.damage()) for file in damaged) + f" (in {folder}/version-2){_last_word(seen)}"
        yield Finding(host, "the data on disk are damaged", evidence, _restore(folder, quorum))
    elif said and not seen.running:
        remedy = _restore(folder, quorum)
        if _NO_SNAPSHOT in said:
            remedy += (
                "; where ZooKeeper 3.4 was replaced by a newer one before it had written a snapshot: start it once "
                "with snapshot.trust.empty=true in zoo.cfg"
            )
        yield Finding(host, "the data on disk are damaged", f"the log says: {said}", remedy)


_NO_SNAPSHOT = "No snapshot found, but there are log entries"
_DAMAGED = (
    rf"CRC check failed|invalid magic number|{_NO_SNAPSHOT}|Unreasonable length = (-\d|\d{{9}})|"
    r"Last transaction was partial|(transaction|snapshot).*(EOFException|corrupt)"
)
"""Lines of the log about files that are damaged. A record of less than 100 MB may be whole: see jute.maxbuffer."""


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
        r"Snapshot directory has log files",
        "transaction logs are in the snapshots' folder",
        "zoo.cfg has dataDir and dataLogDir, and log.* of before are in the first: mv {data}/version-2/log.* "
        "{txns}/version-2/ (or take dataLogDir out of zoo.cfg), then start (1.2)",
    ),
    (
        r"Log directory has snapshot files",
        "snapshots are in the transaction logs' folder",
        "zoo.cfg has dataDir and dataLogDir, and snapshot.* are in the second: mv {txns}/version-2/snapshot.* "
        "{data}/version-2/ (or take dataLogDir out of zoo.cfg), then start (1.2)",
    ),
    (
        r"dataLogDir \S+ is missing|Missing (data|snap) directory|Unable to create (data|snap) directory",
        "a data folder is missing",
        "mkdir -p {data}/version-2 {txns}/version-2 for the user that ZooKeeper runs as, then start (1.2)",
    ),
    (
        r"Cannot write to (data|snap) directory|\(Permission denied\)|AccessDeniedException",
        "ZooKeeper may not use its files",
        "ls -lR {data} {txns} {logs}: let them belong to the user that ZooKeeper runs as (chown -R), then start (1.2)",
    ),
    (
        r"Unreasonable length = \d+",
        "a record on disk is longer than jute.maxbuffer",
        "set -Djute.maxbuffer in java.env to more than that length, the same on every member and client that read it; "
        "if it was never set higher, the file is damaged: read the log for its name",
    ),
    (
        r"must be in a separate dynamic config file",
        "zoo.cfg has members beside dynamicConfigFile",
        "take the lines server.N, group.N and weight.N out of {conf}/zoo.cfg, then start (1.2)",
    ),
    (
        r"dynamic file shouldn't have version|Unrecognised parameter: ",
        "the dynamic file is not understood",
        "leave only server.N, group.N and weight.N in the file that dynamicConfigFile names, then start (1.2)",
    ),
    (
        r"client address for this server .* is different",
        "clientPort differs between zoo.cfg and the dynamic file",
        "take clientPort out of {conf}/zoo.cfg, or make both the same, then start (1.2)",
    ),
    (
        r"My id \d+ not in the peer list|No QuorumServer corresponding to myid",
        "no server line has its id",
        "apply 2.2.1 and 2.2.2, then start (1.2)",
    ),
    (
        r"serverid .* is not a number",
        "myid is not a number",
        "apply 2.2.1: {data}/myid holds the number alone, without blanks, then start (1.2)",
    ),
    (
        r"Address unresolved|UnknownHostException|UnresolvedAddressException",
        "a server line names a host that is not known here",
        "see that each name in the server lines resolves on this host (getent hosts NAME), then start (1.2)",
    ),
    (
        r"Observers w/o",
        "there are observers and too few voting members",
        "let at least two server lines be no observers, then start (1.2)",
    ),
    (
        r"is not in a group|is in multiple groups|Every server must be in exactly one group",
        "the groups of zoo.cfg do not hold each voting member once",
        "correct group.N in {conf}/zoo.cfg, the same on all members, then start (1.2)",
    ),
    (
        r"Cannot assign requested address",
        "its own server line names an address that the host does not have",
        "correct the host's address in the parameters, apply 2.2.2, then start (1.2)",
    ),
    (
        r"(Unable to start|Problem starting) AdminServer",
        "the port of the AdminServer is taken",
        "it is 8080 unless zoo.cfg has admin.serverPort, as Marathon's: set admin.enableServer=false, then start (1.2)",
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
    (
        r"UnsupportedClassVersionError|Unsupported major.minor version",
        "Java is too old for this ZooKeeper",
        "install the Java that this version needs (8 from 3.5 on), or set JAVA_HOME in java.env",
    ),
    (
        r"Could not find or load main class|NoClassDefFoundError: org/(apache|slf4j)",
        "Java does not find ZooKeeper's classes",
        "see that the jars are below zookeeper.home and in its lib folder, and CLASSPATH in zookeeper-env.sh",
    ),
    (
        r"Unrecognized (VM )?option|Could not create the Java Virtual Machine|Invalid (maximum|initial) heap size",
        "Java refuses its flags",
        "correct JVMFLAGS and SERVER_JVMFLAGS in java.env and zookeeper-env.sh, then start (1.2)",
    ),
    (
        r"OutOfMemoryError|Could not reserve enough space|Cannot allocate memory",
        "ZooKeeper's memory is too small",
        "give it more: JVMFLAGS in java.env (-Xmx), or memory to the host",
    ),
    (
        r"No space left on device|Disk quota exceeded",
        "the disk was full",
        "see that there is room now, then start again (1.2)",
    ),
    (
        r"Unable to load database on disk|Found null in .*Epoch|(current|accepted)Epoch|the (current|accepted) epoch",
        "the data on disk do not fit together",
        "copy version-2 first; then, while a quorum serves without this host, move version-2 aside and start (1.2)",
    ),
    (
        r"Invalid config, exiting abnormally|ConfigException|Invalid arguments, exiting abnormally",
        "zoo.cfg is not understood",
        "read what the log says of it, and correct zoo.cfg",
    ),
)
"""A line of the log, what it means, and what to do; the most special first, since one failure logs several. The
evidence is the line itself."""


def _said(site: Site, seen: Seen) -> Iterator[Finding]:
    if seen.running:
        return
    places = {"data": seen.data, "txns": seen.txns, "conf": site.zookeeper.conf_dir, "logs": site.zookeeper.log_dir}
    for pattern, cause, remedy in _SAID:
        for line in seen.said:
            if re.search(pattern, line):
                yield Finding(seen.host.name, cause, f"the log says: {line}", remedy.format_map(places))
                break


def _misplaced(seen: Seen) -> Iterator[Finding]:
    """The same as ZooKeeper would find from 3.4.13 on, where its log does not tell."""
    kinds = {"Snapshot directory": ("log.", seen.files), "Log directory": ("snapshot.", seen.txn_files)}
    if seen.running or seen.fact["data_at"] == seen.fact["txns_at"]:
        return
    for pattern, cause, remedy in _SAID:
        prefix, files = next((kind for name, kind in kinds.items() if pattern.startswith(name)), ("", ()))
        if names := [file.name for file in files if prefix and file.name.startswith(prefix)]:
            folder = seen.data if prefix == "log." else seen.txns
            evidence = f"{', '.join(names[:3])} in {folder}/version-2"
            yield Finding(seen.host.name, cause, evidence, remedy.format(data=seen.data, txns=seen.txns))


def _waiting(site: Site, seen: Seen, everywhere: Mapping[str, Seen]) -> Iterator[Finding]:
    """A member that runs and does not serve waits for others: either too few run, or it cannot reach them."""
    if not seen.running:
        return
    voters = [host.name for host in site.having("zookeeper") if not host.observer]
    running = [name for name, one in everywhere.items() if one.running and name in voters]
    majority = len(voters) // 2 + 1
    if len(running) < majority:
        evidence = (
            f"only {', '.join(running)} of {majority} that a quorum takes {'runs' if len(running) == 1 else 'run'}"
        )
        yield Finding(seen.host.name, "too few members run", evidence, "start the others (1.2)")
        return
    for pattern, cause, remedy in _RUNS_AND_SAYS:
        if logged := next((line for line in seen.said if re.search(pattern, line)), None):
            yield Finding(seen.host.name, cause, f"the log says: {logged}", remedy)
            return
    ids = {str(one.host.myid): name for name, one in everywhere.items()}
    unreached = {match[1] for line in seen.said if (match := re.search(r"Cannot open channel to (\d+) at", line))}
    if names := [ids[one] for one in sorted(unreached) if ids.get(one) in running]:
        ports = f"{site.zookeeper.quorum_port} and {site.zookeeper.election_port}"
        evidence = f"it runs and its log says 'Cannot open channel' to {', '.join(names)}, where ZooKeeper runs as well"
        yield Finding(
            seen.host.name, "members cannot reach each other", evidence, f"open ports {ports} between the hosts"
        )


_RUNS_AND_SAYS = (
    (
        r"Epoch of leader is lower|Leaders epoch, .* is less than accepted epoch|less than our accepted epoch",
        "the leader's history is older than its own",
        "do not remove its data: it has changes that the leader has not. See which members lost their version-2 or "
        "were restored; stop the ensemble, start the members with the newest data first, the others afterwards",
    ),
    (
        r"UnknownHostException|<unresolved>|UnresolvedAddressException",
        "a server line names a host that is not known here",
        "see that each name in the server lines resolves on this host (getent hosts NAME), then restart (1.2)",
    ),
)
"""The same of a member that runs on while it cannot serve."""


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

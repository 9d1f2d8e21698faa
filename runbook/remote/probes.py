"""Questions in sh that several services and the preflight ask of a host: who listens at a port, what a process is, and
what its clock says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from runbook.remote.hosts import Output
from runbook.remote.shell import facts
from runbook.secrets import mask_arguments

COMMAND_OF = r"""
command_of() { tr '\0\n' '  ' 2>/dev/null < "/proc/$1/cmdline" | sed 's/ *$//'; }
"""
"""Defines `command_of PID`: the command line of a process, nothing where it does not live (or is the kernel's)."""

# Local address and port are the fourth field of both; ss names a process as users:(("java",pid=12,fd=3)), in CentOS
# 7.2 still as users:(("java",12,3)), and netstat as 12/java.
_LISTENERS = r"""
{ ss -ltnp 2>/dev/null || netstat -ltnp 2>/dev/null || echo '? ? ? :unknown'; } | awk '
  { n = split($4, part, ":"); port = part[n]; pid = "" }
  port == "unknown" { print "unknown" }
  port !~ /^[0-9]+$/ { next }
  match($0, /pid=[0-9]+/) { pid = substr($0, RSTART + 4, RLENGTH - 4) }
  pid == "" && match($0, /",[0-9]+,/) { pid = substr($0, RSTART + 2, RLENGTH - 3) }
  pid == "" && match($0, / [0-9]+\//) { pid = substr($0, RSTART + 1, RLENGTH - 2) }
  { print port, pid }' | sort -u | while read -r port pid; do
  echo "listen=$port ${pid:-?} $(command_of "$pid")"
done
"""
LISTENERS = COMMAND_OF + _LISTENERS
"""Prints a line `listen=PORT PID COMMAND` for every process that listens at a TCP port, whatever the address.

PID is `?` where the system does not tell (not asked as root, a port of the kernel); `listen=unknown ? ` where the host
has neither ss nor netstat.
"""


INSPECT_EACH = """\
inspect_each() {
  format=$1; shift
  [ $# -gt 0 ] || return 0
  if all=$(docker inspect --type container -f "$format" "$@" 2>/dev/null); then printf '%s\\n' "$all"; return 0; fi
  for id; do docker inspect --type container -f "$format" "$id" 2>/dev/null; done
  return 0
}
"""
"""Defines `inspect_each FORMAT ID…`: what `docker inspect` prints of each of these containers that is still there.

Asked for several, a client before 17.05 stops at the first that is gone (1.11: api/client/inspect.go, inspectElements);
so then they are asked for one by one.
"""
OWN_NAMES = r"""
own_names() {
  h=$(uname -n)
  for n in "$h" "${h%%.*}" "$@"; do
    awk -v n="$n" '{ sub(/#.*/, "") }
      $1 ~ /^[0-9.]+$/ { for (i = 2; i <= NF; i++) if (tolower($i) == tolower(n)) { print "maps=" n, $1, NR; exit } }
    ' /etc/hosts 2>/dev/null
  done
}
"""
"""Defines `own_names NAME…`, which prints `maps=NAME ADDRESS LINE` for the host's own names and these, as /etc/hosts
has them (IPv4; the first line with a name counts)."""


def loopback_names(output: str) -> tuple[tuple[str, str, int], ...]:
    """The names that `own_names` found to be the loopback: name, address, line of /etc/hosts. `localhost` may be."""
    found = (line.split(" ") for line in dict.fromkeys(values(output, "maps")))
    return tuple(
        (name, address, int(line))
        for name, address, line in found
        if address.startswith("127.") and not (name == "localhost" and address == "127.0.0.1")
    )


@dataclass(frozen=True)
class Listener:
    """A process that listens at a TCP port; `pid` is None where the system does not tell."""

    port: int
    pid: int | None
    command: str

    def __str__(self) -> str:
        return f"pid {self.pid or '?'} ({shortened(self.command) or 'a process that is not known'})"


def listeners(output: str) -> tuple[Listener, ...] | None:
    """The listeners that LISTENERS printed; None where the host could not tell."""
    found = []
    for line in values(output, "listen"):
        port, pid, command = (*line.split(" ", 2), "")[:3]
        if port == "unknown":
            return None
        found.append(Listener(int(port), int(pid) if pid.isdecimal() else None, command))
    return tuple(found)


def timed(script: str) -> str:
    """`script` between two looks at the host's clock, for `ahead`."""
    look = 'echo "{}=$(date +%s.%N)"\n'
    return look.format("first") + script.rstrip("\n") + "\n" + look.format("last")


def ahead(output: Output) -> tuple[float, float]:
    """By how many seconds a host's clock is ahead of this machine's (negative: behind), at least and at most.

    From the answer to a `timed` question: both looks fell between its `sent` and `received`, however late it came.
    """
    said = facts(output.stdout)
    return float(said["last"]) - output.received, float(said["first"]) - output.sent


def values(output: str, key: str) -> tuple[str, ...]:
    """What follows `key=` in each line of a probe's output that begins with it, in order."""
    prefix = f"{key}="
    return tuple(line[len(prefix) :] for line in output.splitlines() if line.startswith(prefix))


def shortened(command: str, length: int = 80) -> str:
    """A command line that fits a sentence: a Java program's class instead of its class path, cut to `length`, and with
    what is a secret by its name masked (Marathon's has `--http_credentials`)."""
    command = mask_arguments(command)
    words: Iterable[str] = command.split()
    if command.partition(" ")[0].rpartition("/")[2] == "java":
        words = ["java", *(word for word in list(words)[1:] if not word.startswith("-") and ".jar" not in word)]
    text = " ".join(words)
    return text if len(text) <= length else f"{text[: length - 1]}…"

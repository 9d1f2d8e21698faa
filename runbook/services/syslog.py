"""One log file a program, by rsyslog (document 2.2.7), and their rotation.

Mesos' start script and Marathon's send all output to syslog under the program's name. The document's rules write it to
a file each, but lack `stop`, so that every line goes to /var/log/messages as well, and nothing ever shortens the files:
the one of Marathon is at 120 MB after a week. Sources: rsyslog's documentation (omfile, `stop`), logrotate(8).
"""

from __future__ import annotations

import re
import secrets
from pathlib import PurePosixPath

import pandas as pd

from runbook.errors import ParameterError, Problem
from runbook.remote.checks import Evidence
from runbook.remote.hosts import Hosts
from runbook.remote.probes import values
from runbook.remote.shell import quote
from runbook.remote.steps import Directory, File, Service, Step
from runbook.services.syslog_order import RuleOrder
from runbook.site import HostParameters, Site

ROLES = frozenset({"mesos_master", "mesos_slave", "marathon"})
"""The roles of the hosts on which something logs under one of the programs' names."""

KEEP = 14
"""Rotated files that are kept of each log."""
SIZE = "100M"
"""From which size on a log is rotated before its day is over, where logrotate runs more often than daily and adds no
date to the names. CentOS 7's cron runs it daily, with `dateext`: there a log grows for a whole day."""

WRITTEN = "# Written by the runbook (2.2.7): changes made here are lost.\n"


def steps(site: Site) -> tuple[Step, ...]:
    """The rules, the rotation, and an rsyslog that has read the rules: it restarts only where they changed after its
    start. Raises ParameterError for a folder whose name these files cannot hold."""
    # Both files have a quoting of their own, in which a path could become a directive.
    if not re.fullmatch(r"[\w./+-]+", site.syslog.log_dir, re.ASCII):
        message = f"{site.syslog.log_dir!r} holds characters that mean something to rsyslog or logrotate"
        remedy = "name a folder of letters, digits and _ . / + -"
        raise ParameterError([Problem(site.file, 0, "syslog.log_dir", message, remedy)])
    return (
        Directory(site.syslog.log_dir),
        File(site.syslog.config, rules(site)),
        File(rotation_path(site), rotation(site)),
        RuleOrder(site.syslog.config, site.syslog.programs),
        Service("rsyslog", restart_if_newer=(site.syslog.config,)),
    )


def rules(site: Site) -> str:
    """The file of rsyslog: what a program says goes to its file, and nowhere else."""
    return WRITTEN + "".join(
        f"""
if $programname == '{program}' then {{
   action(type="omfile" file="{site.syslog.log_dir}/{program}.log")
   stop
}}
"""
        for program in site.syslog.programs
    )


def rotation_path(site: Site) -> str:
    """Where logrotate finds how to rotate the files: named as rsyslog's file is."""
    return f"/etc/logrotate.d/{PurePosixPath(site.syslog.config).stem}"


def rotation(site: Site) -> str:
    """The file of logrotate. rsyslog opens its files anew on SIGHUP, without losing a line.

    logrotate runs as logrotate_t, which SELinux's policy of CentOS 7.2 lets signal every process, and which may ask
    systemd for a unit's state, but not have it send a signal (`systemctl kill` needs `stop`; fedora-selinux/
    selinux-policy-contrib e4637c2bb came later).
    """
    files = " ".join(f'"{site.syslog.log_dir}/{program}.log"' for program in site.syslog.programs)
    return f"""{WRITTEN}
{files} {{
    daily
    maxsize {SIZE}
    rotate {KEEP}
    missingok
    notifempty
    compress
    delaycompress
    sharedscripts
    postrotate
        pid=$(systemctl show -p MainPID rsyslog.service | sed 's/.*=//')
        [ "${{pid:-0}}" -eq 0 ] || kill -HUP "$pid"
    endscript
}}
"""


# whether a line arrives

_DELIVER = """\
for program in {programs}; do
  logger -p user.info -t "${{program}}[$$]" {text}
done
for program in {programs}; do
  n=0
  until grep -qF -e {text} {folder}/"$program.log" 2>/dev/null; do
    n=$((n+1)); [ $n -lt 25 ] || {{ echo "missing=$program"; break; }}
    sleep 0.2
  done
done
"""


def daemons(site: Site, host: HostParameters) -> list[str]:
    """The programs with a log file of their own that a host runs."""
    return [program for program in site.syslog.programs if program.replace("-", "_") in ROLES.intersection(host.roles)]


def delivered(site: Site, hosts: Hosts) -> Evidence:
    """Whether a line that is logged under each daemon's tag arrives in its file. The line stays there."""
    text = f"runbook: delivery check {secrets.token_hex(8)}"
    rows = []
    for host in hosts:
        programs = daemons(site, host)
        script = _DELIVER.format(
            programs=" ".join(map(quote, programs)), text=quote(text), folder=quote(site.syslog.log_dir)
        )
        output = hosts.only(host.name).run(script)[host.name]
        missing = values(output.stdout, "missing")
        for program in programs:
            file = f"{site.syslog.log_dir}/{program}.log"
            if not output.ok:
                found = f"✗ {output.error.message if output.error else output.stderr.strip()}"
            else:
                found = "✗ no line arrived within 5 s" if program in missing else "✓"
            rows.append((host.name, program, file, found))
    table = pd.DataFrame(rows, columns=["host", "program", "file", "line"])
    lost = [f"{host}: {program}" for host, program, _, found in rows if found != "✓"]
    if lost:
        hint = "see that rsyslog runs, and look for an earlier rule of it that ends with `stop` or `~` (rsyslogd -N1)"
        return Evidence(False, f"no line arrived of {', '.join(lost)}", table, hint)
    return Evidence(True, f"a line of each of {len(rows)} daemons arrived", table)

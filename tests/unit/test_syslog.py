"""The rules of rsyslog and the rotation: the document's 2.2.7 and what it lacks."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest
from local_host import PRESENT, SHELLS
from mesos_site import site

from runbook.errors import ParameterError
from runbook.services.syslog import daemons, rotation, rotation_path, rules, steps
from runbook.services.syslog_order import RuleOrder


def test_each_program_has_its_file_and_its_lines_go_nowhere_else() -> None:
    text = rules(site())
    for program in ("marathon", "chronos", "mesos-master", "mesos-slave"):
        block = text.partition(f"if $programname == '{program}' then {{")[2].partition("}")[0]
        assert f'action(type="omfile" file="/var/log/mesos/{program}.log")' in block
        assert block.split()[-1] == "stop"


def test_the_files_are_rotated_and_opened_anew() -> None:
    text = rotation(site())
    first = text.splitlines()[2]
    assert first.split()[:-1] == [
        f'"/var/log/mesos/{program}.log"' for program in ("marathon", "chronos", "mesos-master", "mesos-slave")
    ]
    assert "systemctl kill" not in text  # SELinux of CentOS 7.2 refuses it to logrotate (findings/centos7.md, 3)
    assert rotation_path(site()) == "/etc/logrotate.d/mesos"


@pytest.mark.parametrize("shell", PRESENT)
@pytest.mark.parametrize(("main_pid", "signalled"), [("77", ["-HUP 77"]), ("0", []), ("", [])])
def test_after_a_rotation_the_main_process_gets_the_signal_and_no_other(
    tmp_path: Path, shell: str, main_pid: str, signalled: list[str]
) -> None:
    """Process 0 stands for the whole group of processes (kill(1)), which is logrotate's own."""
    script = rotation(site()).partition("postrotate\n")[2].partition("endscript")[0]
    (tmp_path / "systemctl").write_text(f"#!/bin/sh\n[ '{main_pid}' = '' ] || echo 'MainPID={main_pid}'\n")
    (tmp_path / "systemctl").chmod(0o755)
    asked = f'kill() {{ echo "$@" >> {tmp_path}/killed; }}\n{script}'
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run([*SHELLS[shell], "-s"], input=asked, text=True, env=path, check=True)
    killed = tmp_path / "killed"
    assert (killed.read_text().splitlines() if killed.exists() else []) == signalled


def test_rsyslog_restarts_only_when_its_rules_are_newer() -> None:
    *_, service = steps(site())
    assert service.label == "service rsyslog"
    assert service.restart_if_newer == ("/etc/rsyslog.d/mesos.conf",)  # type: ignore[attr-defined]


@pytest.mark.parametrize("folder", ['/var/log/x") action(type="omprog', "/var/log/a b", "/var/log/*", "/var/log/{x}"])
def test_a_folder_that_could_become_a_directive_is_refused(folder: str) -> None:
    with pytest.raises(ParameterError, match=r"syslog\.log_dir"):
        steps(site(more=f"syslog: {{log_dir: '{folder}'}}"))


# the order of rules

CENTOS = """\
# as CentOS 7 ships it
$ModLoad imjournal # provides access to the systemd journal
$WorkDirectory /var/lib/rsyslog
$IncludeConfig /etc/rsyslog.d/*.conf
$OmitLocalLogging on
*.info;mail.none;authpriv.none;cron.none                /var/log/messages
*.* stop
"""
OURS = "/etc/rsyslog.d/mesos.conf"


def order(files: dict[str, str], main: str = CENTOS) -> str:
    """What the step says of rsyslog's files; nothing where all is well."""
    found = {"/etc/rsyslog.conf": main, OURS: "if $programname == 'mesos-master' then stop\n", **files}
    state = "".join(f"file={path} {base64.b64encode(text.encode()).decode()}\n" for path, text in found.items())
    change = RuleOrder(OURS, ("mesos-master", "marathon")).plan(state)
    assert change is None or change.kept
    return change.summary if change else ""


def test_the_rules_of_centos_and_those_after_ours_discard_nothing() -> None:
    assert (
        order({"/etc/rsyslog.d/zz-last.conf": "*.* stop\n", "/etc/rsyslog.d/listen.conf": "$SystemLogSocketName /x\n"})
        == ""
    )


@pytest.mark.parametrize(
    ("text", "line", "programs"),
    [
        (":programname, isequal, \"mesos-master\" ~\n", 1, "mesos-master"),
        ("# why\n:programname, startswith, \"mesos\" /var/log/all.log\n& stop\n", 3, "mesos-master"),
        ("& ~\nuser.*  /var/log/user.log\n& ~\n", 3, "mesos-master, marathon"),
        ("*.info;user.none stop\n*.=info stop\n", 2, "mesos-master, marathon"),
        ("if $programname == 'mesos-master' then stop\n", 1, "mesos-master"),
        (
            "if ($programname contains 'mesos') and\n   not ($syslogfacility-text == 'mail') then {\n  /x\n  stop\n}\n",
            4,
            "mesos-master",
        ),
        (
            "if $programname == ['a'] or $syslogtag startswith 'marathon' then { action(type=\"omfile\") stop }\n",
            1,
            "marathon",
        ),
        ("if $programname == ['a', 'marathon'] then stop\n", 1, "marathon"),
        (
            "if $programname != 'marathon' then {\n  if $syslogseverity <= 6 then {\n    stop\n  }\n}\n",
            3,
            "mesos-master",
        ),
        ("if $programname == 'sshd' then { /x } else {\n  stop\n}\n", 2, "mesos-master, marathon"),
        ("if re_match($programname, '^mesos-') then ~\n", 1, "mesos-master"),
        ("!marathon\n*.* ~\n!*\n", 2, "marathon"),
        ("*.* \\\n  stop\n", 1, "mesos-master, marathon"),
    ],
)  # fmt: skip
def test_an_earlier_rule_that_discards_lines_is_named(text: str, line: int, programs: str) -> None:
    path = "/etc/rsyslog.d/10-site.conf"
    assert order({path: text}).startswith(f"{path} line {line} discards the lines of {programs} before {OURS}")


@pytest.mark.parametrize(
    "text",
    [
        ":programname, isequal, \"mesos\" ~\n",
        ":programname, !contains, \"m\" ~\n",
        ":msg, contains, \"mesos-master\" ~\n",
        "mail.* stop\n*.err stop\n*.*;user.!debug stop\n",
        "*.info /var/log/messages\n",
        "if $msg contains 'DEBUG' then stop\n",
        "if $programname == 'mesos-master' and $msg contains 'x' then stop\n",
        "if $programname == 'mesos-master' then { /var/log/x.log }\n",
        "if $programname == 'sshd' then stop\n",
        "# *.* stop\n",
        "ruleset(name=\"remote\") {\n  stop\n}\n",
        "template(name=\"x\" type=\"string\"\n  string=\"%msg% stop\")\n",
    ],
)  # fmt: skip
def test_a_rule_that_lets_lines_pass_is_not_named(text: str) -> None:
    assert order({"/etc/rsyslog.d/10-site.conf": text}) == ""


def test_rules_of_the_main_file_before_the_include_count() -> None:
    assert "/etc/rsyslog.conf line 1 discards" in order({}, f"user.* ~\n{CENTOS}")
    assert "/etc/rsyslog.conf line 1 discards" in order(
        {}, 'user.* ~\ninclude(file="/etc/rsyslog.d/*.conf" mode="optional")\n'
    )


def test_a_file_that_rsyslog_does_not_include_is_named() -> None:
    assert order({}, "*.info /var/log/messages\n").startswith(f"/etc/rsyslog.conf does not include {OURS}")


def test_the_probe_prints_the_files_in_the_order_of_their_includes(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/10-b.conf").write_text("*.* ~\n")
    (tmp_path / "d/mesos.conf").write_text("x\n")
    (tmp_path / "main").write_text(f"$IncludeConfig {tmp_path}/d/*.conf\n")
    script = RuleOrder(OURS, ()).probe().replace("/etc/rsyslog.conf", f"{tmp_path}/main")
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert [line.split(" ")[0] for line in done.stdout.splitlines()] == [
        f"file={tmp_path}/{name}" for name in ("main", "d/10-b.conf", "d/mesos.conf")
    ]


def test_the_daemons_of_a_host_are_those_of_its_roles() -> None:
    parameters = site(masters=1, slaves=2, more="mesos: {master: {allow_even: true}}")
    assert [daemons(parameters, host) for host in parameters.hosts] == [
        ["mesos-master", "mesos-slave"],
        ["mesos-slave"],
    ]

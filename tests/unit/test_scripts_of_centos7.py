"""Every script that the product can send is one that CentOS 7.2's shell and programs read as it is meant."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from centos7_lint import RULES, TABLE, Unreadable, commands, violations
from local_host import SHELLS
from scripts_sent import (
    SECRETS,
    VARIANTS,
    calls,
    collected,
    framed,
    kinds,
    parts,
    questions,
    site,
    steps_of,
    strings_of_sh,
)

PARSERS = {**SHELLS, "busybox": ["busybox", "ash"]}
"""dash, bash in POSIX mode, a bash 4.2 where RUNBOOK_OLD_BASH names one, and busybox' ash."""


@pytest.fixture(scope="module")
def scripts() -> Mapping[str, str]:
    with pytest.MonkeyPatch.context() as patched:
        for name in SECRETS:
            patched.setenv(name, f"the secret of {name}")
        return collected()


# that all are there


def test_every_kind_of_step_is_among_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, f"the secret of {name}")
    assert kinds() == {type(step) for changes in VARIANTS.values() for step in steps_of(site(*changes))}


def test_every_question_is_among_them() -> None:
    assert calls("run") == set(questions(site()))


def test_pieces_are_made_by_the_framework_alone() -> None:
    """So that a script is a step's, a question's, or one of those that `collected` names."""
    assert calls("Piece") == {
        "remote.engine.HostRun._pieces",
        "remote.engine.HostRun._probe",
        "remote.hosts.Hosts.run.ask",
        "remote.session.Session._begins_with",
    }


NOT_SENT = {
    "if it was just elected": "a hint in prose",
    "\\$(\\w+)": "a regular expression",
    "\\$([\\w!.-]+)": "a regular expression",
    "/bin/sh -c 'eval": "the login's shell reads it, which may be csh; `collected` has the text that it evaluates",
    "while true; do (": "the document's app, which Mesos runs",
    "for name in ": "the command of MySQL's container, whose own shell reads it",
    "while sleep 10; do date": "the document's app, which Mesos runs",
}
"""Strings that look like sh and never reach a host's shell by a script, by how they begin."""


def test_every_string_of_sh_in_the_package_is_among_them(scripts: Mapping[str, str]) -> None:
    sent = "\n".join(scripts.values())
    missing = {
        f"runbook/{module.replace('.', '/')}.py:{line}": text
        for module, line, text in strings_of_sh()
        if not any(all(part in sent for part in reading) for reading in parts(text))
        and not text.startswith(tuple(NOT_SENT))
    }
    assert missing == {}, "sh that no script made here holds: give its step or question a variant in scripts_sent.py"


def test_a_string_of_sh_is_known_as_such() -> None:
    texts = [text for _, _, text in strings_of_sh()]
    assert len(texts) > 100
    for begin in NOT_SENT:
        assert any(text.startswith(begin) for text in texts), f"{begin!r} is in the package no longer"


# that they are read


@pytest.mark.parametrize("shell", PARSERS)
def test_every_shell_reads_them_as_they_are_sent(scripts: Mapping[str, str], shell: str) -> None:
    assert shutil.which(PARSERS[shell][0]), f"install {PARSERS[shell][0]}"
    refused = {}
    for name, text in scripts.items():
        checked = subprocess.run([*PARSERS[shell], "-n"], input=framed(text).encode(), capture_output=True, check=False)
        if checked.returncode or checked.stderr:
            refused[name] = checked.stderr.decode()
    assert refused == {}


EXCLUDED = {
    "SC1010": "it takes 'then' and 'done' in messages for reserved words",
    "SC1090": "a file of the host, as its start script reads it",
    "SC2010": "`ls -l` of links in /proc, whose names are numbers, shows all their targets at once",
    "SC2034": "a counter that is only counted, and what a later question's part reads",
    "SC2043": "a loop over the parameters' list, which may have one element",
    "SC2046": "words are meant to be split: `set -- $(…)`",
    "SC2174": "of `mkdir -p -m 700` only the last folder is meant, its parent has the same line before it",
    "SC2194": "`case` of a word of the parameters",
    "SC2209": "`now=link`: the name of a program as a value",
}
"""What shellcheck (https://www.shellcheck.net/wiki) warns of in vain, and why. Below warnings are matters of taste."""


def _shape(text: str) -> str:
    """A script without the values in it: of those alike but for them one is looked at."""
    return re.sub(r"'[^'\n]*'|/[\w./@:-]+|\b[0-9a-f]{12,}\b|^[A-Za-z0-9+/=]{4,76}$", "x", text, flags=re.MULTILINE)


def test_shellcheck_finds_nothing_that_is_not_sh(scripts: Mapping[str, str], tmp_path: Path) -> None:
    assert shutil.which("shellcheck"), "install shellcheck"
    files = {}
    for name, text in {_shape(text): (name, text) for name, text in scripts.items()}.values():
        files[str(tmp_path / f"{len(files)}.sh")] = name
        Path(list(files)[-1]).write_text(text)
    checked = subprocess.run(
        ["shellcheck", "--norc", "-s", "sh", "-S", "warning", "-e", ",".join(EXCLUDED), "-f", "json1", *files],
        capture_output=True,
        check=False,
    )
    comments = json.loads(checked.stdout)["comments"]
    assert [f"{files[one['file']]}:{one['line']}: SC{one['code']} {one['message']}" for one in comments] == []


def test_centos7_has_all_that_they_call(scripts: Mapping[str, str]) -> None:
    found = {name: problems for name, text in scripts.items() if (problems := violations(text))}
    assert found == {}


def test_the_frame_is_read_as_well() -> None:
    assert violations(framed("echo 1")) == []


# the lint itself

REFUSED = {
    "systemctl show --value -p MainPID docker": "--value",
    "systemctl show -P MainPID docker": "-P",
    "systemctl revert docker": "revert",
    "systemctl kill --kill-whom=main docker": "--kill-whom",
    "systemctl start --wait x": "--wait",
    "timeout 5 systemctl is-system-running --wait": "--wait",
    "journalctl --since '3 min ago' -n 300 -u x": "--since with -n",
    "journalctl -n300 --since=-5min": "--since with -n",
    "journalctl --lines=5 --since today": "--since with -n",
    "x=$(journalctl -q --since yesterday -u x -n 20 | cut -c 1-80)": "--since with -n",
    "journalctl --grep error": "--grep",
    "journalctl -g error": "-g",
    "journalctl --output-fields=MESSAGE": "--output-fields",
    "docker image inspect x": "docker image",
    "docker container ls": "docker container",
    "if timeout 30 docker system df >/dev/null; then echo yes; fi": "docker system",
    "docker inspect a b": "several",
    "docker inspect --type container -f '{{.Id}}' $ids": "several",
    "docker ps -q | xargs -r docker inspect -f '{{.Id}}' one two": "several",
    "docker run --mount type=bind x": "--mount",
    "docker run --network host x": "--network",
    "docker run --init x": "--init",
    "docker logs --until 5m x": "--until",
    "docker pull -q x": "-q",
    "docker info -f '{{.Driver}}'": "foreseen",
    "docker login --password-stdin": "docker login",
    "docker ps --format '{{- .ID}}'": "template",
    "docker ps --format '{{slice .ID 0 4}}'": "template",
    "stat --cached=never x": "--cached",
    "stat -c '%W %s' x": "format of stat",
    "stat -L -c %Hd x": "format of stat",
    "date -Iseconds": "colon",
    "date --iso-8601=seconds": "colon",
    "date --debug -d now": "--debug",
    "timeout -v 5 sleep 9": "-v",
    "timeout --verbose 5 sleep 9": "--verbose",
    "env -C /x true": "-C",
    "env -S 'a b'": "-S",
    "b2sum x": "b2sum",
    "base32 x": "base32",
    "basenc --base16 x": "basenc",
    "head -z x": "-z",
    "cut -z -f 1": "-z",
    "tail -z x": "-z",
    "tee -p x": "-p",
    "sha256sum --ignore-missing -c x": "--ignore-missing",
    "cp --update=none a b": "",
    "cp --debug a b": "--debug",
    "mv --exchange a b": "--exchange",
    "ls --zero": "--zero",
    "wc --total=only x": "--total",
    "numfmt -z 5": "-z",
    "printf %q x": "printf %q",
    "sync -f x": "sync -f",
    "sync x": "no operand",
    "ss -H -ltn": "-H",
    "ss -ltnpO": "-O",
    "ip -j addr": "-j",
    "ip -br addr": "-br",
    "nsenter -a -t 5 id": "-a",
    "nsenter --all -t 5 id": "--all",
    "flock --verbose 9": "--verbose",
    "logger --rfc5424 x": "--rfc5424",
    "lsns": "lsns",
    "setpriv --reuid 5 x": "setpriv",
    "find / -files0-from x": "-files0-from",
    "xargs -o vi": "-o",
    "sed --debug x": "--debug",
    "awk --csv x": "--csv",
    "awk 'BEGIN { print typeof(x) }'": "awk",
    "grep --no-ignore-case x": "--no-ignore-case",
    "ps -o pid,cgroupns": "ps",
    "pidwait x": "pidwait",
    "rpm -q --recommends x": "--recommends",
    "yum install --allowerasing x": "--allowerasing",
    "yum --best install x": "--best",
    "yum module list": "module",
    "dnf install x": "dnf",
    "marathon --version | head -n 1": "marathon",
    "v=$(timeout 20 marathon --version)": "marathon",
    "python3 -c 1": "python3",
    "curl -s http://127.0.0.1": "curl",
    "case $x in a) echo 1;; esac": "parenthesis",
    "case $x in (a) echo 1;; b) echo 2;; esac": "parenthesis",
    "case $x in\n  a|b) echo 1;;\nesac": "parenthesis",
    "case $x in\n  (a) echo 1;;\n  *) echo 2;;\nesac": "parenthesis",
    "y=$(if :; then :; fi; case $x in *a*) echo 1; esac)": "parenthesis",
    'case "$(uname -r)" in 3.*) echo 1;; esac': "parenthesis",
    "echo ${x:+'' \"$x\"}": "null string",
    "echo \"${x-''}\"": "null string",
    'echo ${x:-""}': "null string",
    "while read -r x; do :; done < <(ls)": "process substitution",
    "diff <(ls) x": "",
    "x=`uname`": "backquotes",
    'echo "it is `uname`"': "backquotes",
    "postrotate() { :; }\nsystemctl kill --signal=HUP rsyslog": "rotation",
    "echo $(": "cannot be read",
}
"""Samples that must be refused, and what the refusal must name."""


@pytest.mark.parametrize("sample", REFUSED)
def test_what_centos7_lacks_or_misreads_is_refused(sample: str) -> None:
    found = violations(sample)
    assert any(REFUSED[sample] in problem for problem in found), found


TAKEN = (
    "systemctl enable --now x",  # RHEL's 219 has it
    "journalctl --since '3 min ago' -u x | tail -n 300",
    "journalctl -n 8 -u docker",
    "docker inspect --type container -f '{{.Id}} {{json .}}' \"$id\"",
    "docker info -f '{{.LiveRestoreEnabled}}' 2>/dev/null",
    "docker exec -i x sh -c 'mysql --batch'",
    "docker run -d --name x -p 1:2 -e A x:1 --not-ours",
    "stat -L -c '%s %.Y %U:%g %C %m' x",
    'date -d "$at" +%s.%N; TZ=UTC date -r x +%Y-%m-%dT%H:%M:%S',
    "sort -V x | base64 -w 0 | readlink -m y; mktemp -d /run/x.XXXXXX; ln -sr a b",
    "case $x in (a|'') ;; (*) echo \"${x:-none}\";; esac",
    "case $(uname -r) in\n  ('3 '*) echo 1;;\n  (\"$x\"*)\n    echo 2;;\nesac",
    "base64 -d > x <<'_END_'\nY2FzZSAkeCBpbiBhKSA7OyBlc2Fj\ncase $x in a) lsns;; esac\n_END_\necho 1",
    "# case $x in a) lsns;; esac\necho 'case $x in a) b2sum' # lsns",
    'f() { "$@"; }\nf lsns',
    'echo "${x%%*\\}}" "$((1 + 2))" $(echo $(echo ")"))',
)
"""Samples that must not be refused."""


@pytest.mark.parametrize("sample", TAKEN)
def test_what_centos7_has_is_taken(sample: str) -> None:
    assert violations(sample) == []


def test_the_reader_finds_commands_wherever_they_stand() -> None:
    script = 'a; if b && ! c "$(d $(e) "${x:-$(f)}")"; then (g) | h & fi\n{ i; }\nj() { k; }\ncase $(l) in (m) n;; esac'
    those, functions = commands(script)
    assert sorted(one.words[0] for one in those if one.words[0] != "case") == list("abcdefghikln")
    assert functions == {"j"}
    with pytest.raises(Unreadable):
        commands('echo "open')


def test_every_row_names_its_source() -> None:
    assert all(entry.get("source") or "builtin" in entry for entry in TABLE["programs"].values())
    assert all(rule.source and rule.why for rule in RULES)

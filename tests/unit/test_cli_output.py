"""Every command prints to whatever its output is: any encoding, a closed one, a reader that went away."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from runbook.cli import main

SITE = """\
name: demo
zookeeper: {allow_even: true}
mesos: {cluster: "集群 ☸", master: {allow_even: true}}
ssh: {known_hosts: absent, key: "clé-鍵"}
hosts: [{name: a, address: 127.0.0.1, roles: [zookeeper, mesos_master, docker]}]
images: {ä: {}}
"""


def _commands(group: click.Group, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from _commands(command, (*before, name))
        else:
            yield (*before, name)


COMMANDS = list(_commands(main))
SITES = {"check": "site.yml", "rollout": "site.yml", "console": "site.yml", "images save": "site.yml"}
WRONG = {**dict.fromkeys(SITES, "wörng-錯.yml"), "record verify": "記録", "record list": "記録", "record close": "記録"}
STREAMS = {
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "utf-16": {"PYTHONIOENCODING": "utf-16"},
}
RUN = [sys.executable, "-c", "from runbook.cli import main; main()"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "site.yml").write_text(SITE.replace("images: {ä: {}}\n", ""), encoding="utf-8")
    (tmp_path / "wörng-錯.yml").write_text(SITE, encoding="utf-8")
    (tmp_path / "記録").mkdir()
    (tmp_path / "記録" / "journal.jsonl").write_text("壊れた\n", encoding="utf-8")
    return tmp_path


def environment(folder: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("LC_ALL", "LANG", "PYTHONIOENCODING")}
    return {**kept, "RUNBOOK_LAB_DIR": str(folder / "lab"), "DOCKER_HOST": f"unix://{folder}/none", **more}


@pytest.mark.parametrize("stream", ["ascii"])
@pytest.mark.parametrize("command", [command for command in COMMANDS if " ".join(command) in WRONG], ids=" ".join)
def test_what_an_encoding_lacks_is_replaced(command: tuple[str, ...], stream: str, folder: Path) -> None:
    arguments = [*RUN, *command, WRONG[" ".join(command)]]
    done = subprocess.run(
        arguments, cwd=folder, env=environment(folder, **STREAMS[stream]), capture_output=True, timeout=60, check=False
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode(errors="replace")
    assert done.returncode in (0, 1, 2)
    assert done.stdout or done.stderr


@pytest.mark.parametrize("stream", STREAMS)
def test_the_check_of_hosts_is_shown(stream: str, folder: Path) -> None:
    done = subprocess.run(
        [*RUN, "check", "site.yml"],
        cwd=folder,
        env=environment(folder, **STREAMS[stream]),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode(errors="replace")
    assert done.returncode == 1
    assert "host key" in done.stdout.decode("utf-16" if stream == "utf-16" else "latin-1")


def test_help_of_all_commands_in_ascii(folder: Path) -> None:
    program = "import sys\nfrom runbook.cli import main\n" + "".join(
        f"main([*{command!r}, '--help'], standalone_mode=False)\n" for command in [(), *COMMANDS]
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=environment(folder, PYTHONIOENCODING="ascii"),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.count(b"Usage: ") == len(COMMANDS) + 1


@pytest.mark.parametrize("arguments", [["--help"], ["check", "site.yml"], ["record", "verify", "記録"]], ids=" ".join)
@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-", "| head -c 1"])
def test_an_output_that_takes_nothing_is_no_traceback(arguments: list[str], redirection: str, folder: Path) -> None:
    script = f'"$@" {redirection}'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *RUN, *arguments],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode(errors="replace")
    assert b"Exception ignored" not in done.stderr, done.stderr.decode(errors="replace")


@pytest.mark.parametrize("arguments", [["--help"], ["check", "site.yml"], ["record", "list"]], ids=" ".join)
def test_an_output_on_a_full_disk_is_one_message_and_no_success(arguments: list[str], folder: Path) -> None:
    with open("/dev/full", "wb") as full:  # each write fails as on a full disk (man 4 full)
        done = subprocess.run(
            [*RUN, *arguments],
            cwd=folder,
            env=environment(folder),
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    message = "Error: standard output cannot be written: No space left on device; its text is incomplete\n"
    assert (done.returncode, done.stderr.decode()) == (1, message)


def test_whoever_holds_the_earlier_standard_output_can_go_on_using_it(folder: Path) -> None:
    program = (
        "import sys\nfrom runbook.cli import main\nmain(['--version'], standalone_mode=False)\n"
        "print('after', file=sys.__stdout__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        timeout=60,
        check=False,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("after\n")

"""The doubles' command lines, against the flags that real Mesos 0.28.0 showed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runbook.lab.doubles.mesos import flags
from runbook.lab.doubles.mesos.flags import MASTER, SLAVE, FlagError, Flags, duration

PAYLOADS = Path(__file__).parents[1] / "payloads" / "mesos-0.28.0"
PLACES = {"ip", "port", "zk", "master", "work_dir", "cluster", "quorum", "webui_dir", "launcher_dir", "resources"}
"""Flags that the recorded daemons were given, or whose default is where they were installed."""


def recorded(name: str) -> dict[str, str]:
    found: dict[str, str] = json.loads((PAYLOADS / name).read_text(encoding="utf-8"))["flags"]
    return found


@pytest.mark.parametrize(
    ("known", "name"),
    [(MASTER, "three-masters/leader_flags.json"), (SLAVE, "three-masters/slave1_flags.json")],
)
def test_recorded_flags_are_known_with_their_defaults(known: dict[str, str | None], name: str) -> None:
    shown = recorded(name)
    defaults = Flags(known, [], {}).values
    given = PLACES | {"launcher", "systemd_enable_support"}
    assert {n: v for n, v in defaults.items() if n not in given} == {n: v for n, v in shown.items() if n not in given}
    again = Flags(known, [f"--{name}={value}" for name, value in shown.items()], {})
    assert again.values == defaults | shown


def test_values_come_from_the_line_then_the_environment_then_the_default() -> None:
    environ = {"MESOS_PORT": "1", "MESOS_QUORUM": "3", "MESOS_SANDBOX": "ignored", "PORT": "9"}
    found = Flags(MASTER, ["--port=2"], environ)
    assert (found["port"], found["quorum"], found["registry"]) == ("2", "3", "replicated_log")
    assert found.get("cluster") is None


def test_booleans() -> None:
    assert Flags(SLAVE, ["--no-switch_user"], {})["switch_user"] == "false"
    assert Flags(SLAVE, ["--cgroups_enable_cfs"], {}).is_true("cgroups_enable_cfs")
    assert Flags(SLAVE, [], {"MESOS_STRICT": "0"})["strict"] == "false"


def test_a_value_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "zk").write_text("zk://a:2181/mesos\n")
    assert Flags(MASTER, [f"--zk=file://{tmp_path}/zk"], {})["zk"] == "zk://a:2181/mesos"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--ip.bak=1"], "Failed to load unknown flag 'ip.bak'"),
        (["--no-foo"], "Failed to load unknown flag 'foo' via 'no-foo'"),
        (["--port=1", "--port=2"], "Duplicate flag 'port' on command line"),
        (["--port"], "Failed to load non-boolean flag 'port': Missing value"),
        (["--no-port"], "Failed to load non-boolean flag 'port' via 'no-port'"),
        (["--no-quiet=yes"], "Failed to load boolean flag 'quiet' via 'no-quiet' with value 'yes'"),
        (["--port=many"], "Failed to load flag 'port': Failed to load value 'many'"),
        (["--slave_ping_timeout=soon"], "Failed to load flag 'slave_ping_timeout': Failed to load value 'soon'"),
    ],
)
def test_refusals_in_the_words_of_stout(argv: list[str], message: str) -> None:
    with pytest.raises(FlagError) as refusal:
        Flags(MASTER, argv, {})
    assert str(refusal.value).startswith(message)


def test_refusal_ends_with_usage_and_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        flags.load("mesos-master", MASTER, ["--nonsense"])
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("Failed to load unknown flag 'nonsense'\n\nUsage: mesos-master [options]\n")
    assert "--[no-]quiet" in said


def test_version_says_that_this_is_a_double(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        flags.load("mesos-slave", SLAVE, ["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == "mesos 0.28.0 (rehearsal double)\n"


@pytest.mark.parametrize(("text", "seconds"), [("5mins", 300), ("15secs", 15), ("1weeks", 604800), ("0ns", 0)])
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds

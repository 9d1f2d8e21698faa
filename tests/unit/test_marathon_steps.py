"""The steps of an instance of Marathon: what they make of a state, and what their scripts do in real shells."""

from __future__ import annotations

from pathlib import Path

import pytest
from local_host import PRESENT, LocalHost
from mesos_site import site

from runbook.errors import ParameterError, StepFailed
from runbook.remote import steps as core
from runbook.remote.steps import Absent, Change, Directory, File, Lines, Step
from runbook.services.marathon import steps
from runbook.services.marathon.steps import CONF, ConfFolder
from runbook.site import Site

ARTIFACT = f"artifacts: {{marathon: {{file: m.rpm, sha256: '{'a' * 64}'}}}}"


def marathon_site(more: str = "") -> Site:
    return site(more=f"{ARTIFACT}\n{more}")


def files(given: Site) -> dict[str, str]:
    """The files of the first host by path, as they would be written; None of those that must not be there."""
    found = {}
    for step in steps.settings(given, given.hosts[0]):
        match step:
            case File(path=path, content=str(content)):
                found[path] = content
            case Lines(path=path, lines=lines):
                found[path] = "\n".join(line for _, line in lines)
            case Absent(path=path):
                found[path] = "(absent)"
    return found


def test_the_rpm_is_the_artifact_of_the_parameters() -> None:
    rpm = steps.install(marathon_site())
    assert (rpm.package, rpm.version, rpm.file.name) == ("marathon", "1.1.1-1.0.472.el7", "m.rpm")
    with pytest.raises(ParameterError, match="artifacts"):
        steps.install(site())


def test_the_document_s_files_and_the_address_that_it_lacks() -> None:
    zk = "198.51.100.11:2181,198.51.100.12:2181,198.51.100.13:2181"
    assert files(marathon_site()) == {
        f"{CONF}/master": f"zk://{zk}/mesos\n",
        f"{CONF}/zk": f"zk://{zk}/marathon\n",
        f"{CONF}/hostname": "198.51.100.11\n",
        f"{CONF}/http_port": "(absent)",
        "/etc/default/marathon": "LIBPROCESS_IP=198.51.100.11\n",
    }
    first, *_, last = steps.settings(marathon_site(), marathon_site().hosts[0])
    assert isinstance(first, Directory)
    assert isinstance(last, ConfFolder)


def test_packages_from_1_5_on_are_told_by_variables() -> None:
    given = marathon_site("marathon: {version: 1.5.1-1.0.600.el7}")
    zk = "198.51.100.11:2181,198.51.100.12:2181,198.51.100.13:2181"
    (path,), (text,) = files(given).keys(), files(given).values()
    assert path == "/etc/default/marathon"
    assert text.splitlines() == [
        f"MARATHON_MASTER=zk://{zk}/mesos",
        f"MARATHON_ZK=zk://{zk}/marathon",
        "MARATHON_HOSTNAME=198.51.100.11",
        "MARATHON_HTTP_PORT=8080",
        "MARATHON_MESOS_USER=root",
        "LIBPROCESS_IP=198.51.100.11",
    ]
    assert steps.service(given, given.hosts[0]).restart_if_newer == (path,)


@pytest.mark.parametrize(
    ("version", "reads"),
    [
        ("1.1.1-1.0.472.el7", True),
        ("1.4.11-1.0.676.el7", True),
        ("1.5.0-1", False),
        ("1.11.24-1", False),
        ("2.0-1", False),
    ],
)
def test_which_packages_read_the_folder(version: str, reads: bool) -> None:
    assert steps.reads_folder(marathon_site(f"marathon: {{version: {version}}}")) is reads


def test_other_ports_are_written() -> None:
    found = files(marathon_site("marathon: {http_port: 8081, libprocess_port: 9200}"))
    assert found[f"{CONF}/http_port"] == "8081\n"
    assert found["/etc/default/marathon"] == "LIBPROCESS_IP=198.51.100.11\nLIBPROCESS_PORT=9200"


def test_it_is_restarted_when_any_of_its_files_is_newer() -> None:
    given = marathon_site()
    service = steps.service(given, given.hosts[0])
    assert set(service.restart_if_newer) == {CONF, *files(given)}
    assert (service.name, service.enabled, service.gate) == ("marathon", True, None)


# the folder of flags


def state(*names: str, variables: tuple[str, ...] = ()) -> str:
    lines = [f"file={name}" for name in names] + [f"variable={name} /etc/default/marathon" for name in variables]
    return "".join(f"{line}\n" for line in lines)


@pytest.mark.parametrize(
    "found",
    [
        state(),
        state("master", "zk", "hostname"),
        state("?disable_ha", "zk_max_versions", "mesos_role"),
        state("zk", variables=("MARATHON_TASK_LAUNCH_TIMEOUT",)),
    ],
)
def test_flags_that_marathon_has_are_left_alone(found: str) -> None:
    assert ConfFolder().plan(found) is None


@pytest.mark.parametrize(
    ("found", "told", "remedy"),
    [
        (state("zk", "zk.bak"), "/etc/marathon/conf/zk.bak: not a flag", "mv /etc/marathon/conf/zk.bak /root/"),
        (state("old/zk"), "/etc/marathon/conf/old/zk: not a flag", "mv"),
        (state("a~", "b c"), "/etc/marathon/conf/a~, /etc/marathon/conf/b c: not a flag", "mv"),
        (state(variables=("MARATHON_ZKK",)), "MARATHON_ZKK in /etc/default/marathon: not a flag", "take MARATHON_ZKK"),
        (state(variables=("MARATHON_HTTP_PORT",)), "gives --http_port, which the runbook gives", "take MARATHON_HTTP"),
        (
            state("mesos_role", variables=("MARATHON_MESOS_ROLE",)),
            "/etc/marathon/conf/mesos_role and MARATHON_MESOS_ROLE in /etc/default/marathon both give --mesos_role",
            "or remove the file",
        ),
    ],
)
def test_what_would_end_marathon_is_refused(found: str, told: str, remedy: str) -> None:
    with pytest.raises(StepFailed) as refused:
        ConfFolder().plan(found)
    assert told in refused.value.message
    assert remedy in str(refused.value.remedy)


def test_what_rpm_left_is_put_away() -> None:
    change = ConfFolder().plan(state("zk", "zk.rpmnew"))
    assert change is not None
    assert change.diff == "-/etc/marathon/conf/zk.rpmnew (rpm's; a backup is kept)\n"
    assert change.actions == ("zk.rpmnew",)


class Rooted(Step):
    """The step with its files below a folder of the test."""

    label = "flags"

    def __init__(self, root: Path) -> None:
        self.root = root

    def _moved(self, script: str) -> str:
        return script.replace("/etc/", f"{self.root}/etc/").replace("/var/lib/runbook", f"{self.root}/state")

    def probe(self) -> str:
        return self._moved(ConfFolder().probe())

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        return ConfFolder().plan(state.replace(f"{self.root}/etc/", "/etc/"), pending)

    def script(self, change: Change) -> str:
        return self._moved(ConfFolder().script(change))


@pytest.fixture(params=PRESENT)
def host(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalHost:
    monkeypatch.setattr(core, "STATE_DIR", str(tmp_path / "state"))
    return LocalHost(request.param, tmp_path / "state")


def test_the_probe_sees_what_the_start_script_sees(host: LocalHost, tmp_path: Path) -> None:
    step = Rooted(tmp_path)
    assert host.probe(step) == ""
    conf = tmp_path / "etc/marathon/conf"
    (conf / "sub").mkdir(parents=True)
    for name in ("zk", "?disable_ha", ".hidden", "sub/deep", "with blank"):
        (conf / name).write_text("x\n")
    default = tmp_path / "etc/default/marathon"
    default.parent.mkdir()
    default.write_text(
        "# MARATHON_COMMENT=1\nJAVA_OPTS=-Xmx1g\nMARATHON_MESOS_ROLE=a\n"
        " export MARATHON_MAX_APPS=3\nMARATHON_APP_ID=/m\n"
    )
    assert sorted(host.probe(step).replace(str(tmp_path), "").splitlines()) == [
        "file=?disable_ha",
        "file=sub/deep",
        "file=with blank",
        "file=zk",
        "variable=MARATHON_MAX_APPS /etc/default/marathon",
        "variable=MARATHON_MESOS_ROLE /etc/default/marathon",
    ]


def test_putting_away_keeps_a_backup(host: LocalHost, tmp_path: Path) -> None:
    conf = tmp_path / "etc/marathon/conf"
    conf.mkdir(parents=True)
    for name in ("zk", "zk.rpmsave", "master.rpmnew"):
        (conf / name).write_text(f"{name}\n")
    host.apply(Rooted(tmp_path))
    assert [file.name for file in conf.iterdir()] == ["zk"]
    backup = Path(f"{tmp_path}/state/backup/record{conf}")
    assert sorted(file.read_text() for file in backup.iterdir()) == ["master.rpmnew\n", "zk.rpmsave\n"]

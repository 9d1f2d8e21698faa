"""Whom a host's Docker trusts, and where the registry is added: daemon.json or the command line, never both."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from registry_site import ADDRESS, EDITED, PACKAGED, UNIT, config, encoded, probed, site

from runbook.errors import HostUnreachable, StepFailed
from runbook.remote.hosts import Output
from runbook.remote.json_file import JsonMembers
from runbook.remote.modes import Mode
from runbook.remote.steps import Absent, File, Step, sha256
from runbook.services.docker.daemon import SETTINGS
from runbook.services.registry import trust
from runbook.services.registry.trust import DROPIN, KEY, Docker, Trust, covers, insecure
from runbook.site import Site

TLS = ", security: tls, tls: {certificate: c.pem, key: k.pem, ca: ca.pem}"
SYSCONFIG = UNIT.replace(
    "ExecStart=/usr/bin/docker daemon -H fd://",
    "EnvironmentFile=-/etc/sysconfig/docker\nExecStart=/usr/bin/docker daemon -H fd:// $OPTIONS \\\n  ${MORE}",
)


Kind = TypeVar("Kind", bound=Step)


def one(kind: type[Kind], found: Trust, wanted: Site | None = None, ca: bytes = b"") -> Kind:
    """The one step of its kind that a host gets."""
    (step,) = (step for step in trust.steps(wanted or site(), found, Mode.APPLY, ca) if isinstance(step, kind))
    return step


def after(step: Step, content: str | None) -> str | None:
    """What a step wants a file to hold that holds `content`."""
    assert isinstance(step, JsonMembers)
    state = "kind=absent\n"
    if content is not None:
        data = content.encode()
        state = f"kind=file\nsize={len(data)}\nsha256={sha256(data)}\ncontent={encoded(content)}\n"
    change = step.plan(state)
    return None if change is None else (change.content or b"").decode()


def service(pid: int, told: tuple[str, ...] | None, started: float = 500.0, watched: float = 0.0) -> str:
    """What the probe of Docker's service prints, on a host that is up for 1000 s at the time 10000."""
    lines = ["LoadState=loaded", "ActiveState=active", "SubState=running", "UnitFileState=enabled", f"MainPID={pid}"]
    lines += [f"ticks={int(started * 100)}", "hertz=100", "now=10000.0", "uptime=1000.0"]
    lines += [f"watched={watched} {SETTINGS}"] if watched else []
    return "\n".join([*lines, f"registries={config(told) if told is not None else ''}", ""])


# reading


def test_a_unit_as_shipped_trusts_nobody() -> None:
    found = Trust.read(probed())
    assert (found.flags, found.listed, found.effective) == ((), None, ("127.0.0.0/8",))
    assert found.command == "/usr/bin/docker daemon -H fd://"
    assert found.sources == ()  # the flag in a comment is none


@pytest.mark.parametrize(
    ("files", "environment", "flags", "sources"),
    [
        ({PACKAGED: EDITED}, {}, (ADDRESS,), (PACKAGED,)),
        (
            {
                "/etc/systemd/system/docker.service.d/site.conf": "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd "
                "--insecure-registry=a:1 --insecure-registry b:2\n",
                PACKAGED: UNIT,
            },
            {},
            ("a:1", "b:2"),
            ("/etc/systemd/system/docker.service.d/site.conf",),
        ),
        (
            {PACKAGED: SYSCONFIG},
            {"/etc/sysconfig/docker": "# OPTIONS='--insecure-registry no:1'\nOPTIONS='--insecure-registry a:1'\n"},
            ("a:1",),
            ("/etc/sysconfig/docker",),
        ),
        (
            {PACKAGED: SYSCONFIG},
            {"/etc/sysconfig/docker": 'if [ -z "$X" ]; then\n  X=1\nfi\nMORE=--insecure-registry=10.0.0.0/8\n'},
            ("10.0.0.0/8",),
            ("/etc/sysconfig/docker",),
        ),
        ({PACKAGED: EDITED, "/etc/systemd/system/docker.service": UNIT}, {}, (ADDRESS,), (PACKAGED,)),
        ({"/etc/systemd/system/docker.service": UNIT, PACKAGED: EDITED}, {}, (), ()),
    ],
)
def test_the_flag_is_found_wherever_it_is_given(
    files: dict[str, str], environment: dict[str, str], flags: tuple[str, ...], sources: tuple[str, ...]
) -> None:
    found = Trust.read(probed(files, environment=environment))
    assert (found.flags, found.sources) == (flags, sources)


def test_our_own_drop_in_does_not_count_as_the_unit_s() -> None:
    ours = trust.dropin("/usr/bin/docker daemon -H fd://", [ADDRESS])
    assert Trust.read(probed({DROPIN: ours, PACKAGED: UNIT})).flags == ()


def test_what_the_running_daemon_says_counts_more_than_files() -> None:
    settings = json.dumps({KEY: [ADDRESS]})
    assert Trust.read(probed(settings=settings)).effective == ("127.0.0.0/8",)
    old = probed(
        settings=settings, told=None, version="1.11.1", command="/usr/bin/docker daemon --insecure-registry=a:1"
    )
    assert Trust.read(old).effective == ("a:1", ADDRESS)


def test_a_host_that_does_not_answer_is_no_host_without_docker() -> None:
    assert Trust.read(Output(error=HostUnreachable("node2: no route"))).problem == "node2: no route"
    assert Trust.read(Output("LoadState=not-found\n", "", 0)) == Trust()


@pytest.mark.parametrize(
    ("entry", "covered"),
    [
        (ADDRESS, True),
        ("http://198.51.100.11:8600/", True),
        ("198.51.100.0/24", True),
        ("198.51.100.11", False),
        ("198.51.100.11:8700", False),
        ("198.51.101.0/24", False),
        ("registry.example:8600", False),
        ("", False),
    ],
)
def test_what_an_entry_means(entry: str, covered: bool) -> None:
    assert covers(entry, ADDRESS) is covered


def test_a_registry_known_by_name_lies_in_no_network() -> None:
    assert not covers("10.0.0.0/8", "registry.example:8600")
    assert covers("registry.example:8600", "registry.example:8600")


def test_flags_of_a_command_line() -> None:
    words = ["dockerd", "--insecure-registry", "a:1", "--insecure-registry=b:2", "-insecure-registry", "a:1"]
    assert insecure(words) == ("a:1", "b:2")
    assert insecure(["dockerd", "--insecure-registry"]) == ()


@pytest.mark.parametrize(
    ("live", "settings", "command", "restored"),
    [
        (True, None, "dockerd", True),
        (False, '{"live-restore": true}', "dockerd", False),  # the file is newer than the daemon
        (None, '{"live-restore": true}', "dockerd", True),  # 1.12 does not tell
        (None, None, "dockerd --live-restore", True),
        (None, None, "dockerd", False),
    ],
)
def test_whether_containers_outlive_a_restart_is_the_daemon_s_to_say(
    live: bool | None, settings: str | None, command: str, restored: bool
) -> None:
    output = probed(settings=settings, command=command, live=bool(live), containers=("/app no centos:7",))
    if live is None:
        output = replace(output, stdout=output.stdout.replace("live=false", "live="))
    found = Trust.read(output)
    assert found.live_restore is restored
    assert bool(found.stopped) is not restored


# insecure: the place


def test_daemon_json_gets_the_registry_where_no_flag_is_given() -> None:
    settings = '{"storage-driver": "overlay", "insecure-registries": ["10.1.1.1:5000"]}'
    found = Trust.read(probed(settings=settings))
    wanted = after(one(JsonMembers, found), settings)
    assert wanted is not None
    assert json.loads(wanted) == {"storage-driver": "overlay", KEY: ["10.1.1.1:5000", ADDRESS]}
    assert Absent(DROPIN) not in trust.steps(site(), found, Mode.APPLY)
    assert Absent(DROPIN) in trust.steps(site(), replace(found, added=()), Mode.APPLY)


def test_where_the_flag_is_given_a_drop_in_of_ours_adds_to_it() -> None:
    other = UNIT.replace("fd://\n", "fd:// --insecure-registry a:1\n")
    found = Trust.read(probed({PACKAGED: other}))
    written = one(File, found)
    assert written.path == DROPIN
    assert str(written.content).endswith(
        f'[Service]\nEnvironment="RUNBOOK_INSECURE_REGISTRIES=--insecure-registry {ADDRESS}"\nExecStart=\n'
        "ExecStart=/usr/bin/docker daemon -H fd:// --insecure-registry a:1 $RUNBOOK_INSECURE_REGISTRIES\n"
    )
    assert after(one(JsonMembers, found), '{"debug": true}') is None
    # what is left behind is what the runbook finds there: the second run writes the same
    again = Trust.read(probed({PACKAGED: other, DROPIN: str(written.content)}))
    assert written in trust.steps(site(), again, Mode.APPLY)


def test_a_unit_edited_as_the_document_does_needs_nothing() -> None:
    found = Trust.read(probed({PACKAGED: EDITED}, told=(ADDRESS,)))
    assert [type(step) for step in trust.steps(site(), found, Mode.APPLY)] == [JsonMembers, Docker]
    stale = Trust.read(probed({PACKAGED: EDITED, DROPIN: trust.dropin("/usr/bin/docker daemon", [ADDRESS])}))
    assert Absent(DROPIN) in trust.steps(site(), stale, Mode.APPLY)


def test_given_in_both_places_all_goes_to_the_command_line() -> None:
    settings = f'{{"debug": true, "{KEY}": ["b:2", "{ADDRESS}"]}}'
    found = Trust.read(probed({PACKAGED: EDITED}, settings=settings))
    assert '"RUNBOOK_INSECURE_REGISTRIES=--insecure-registry b:2"' in str(one(File, found).content)
    assert after(one(JsonMembers, found), settings) == '{"debug": true}'
    # the file has lost them by the next run: the drop-in keeps them
    again = Trust.read(probed({PACKAGED: EDITED, DROPIN: str(one(File, found).content)}, settings='{"debug": true}'))
    assert again.added == ("b:2",)
    assert one(File, again) == one(File, found)
    # and they come back to it where the flag is gone from the unit
    freed = Trust.read(probed({PACKAGED: UNIT, DROPIN: str(one(File, found).content)}, settings='{"debug": true}'))
    content = after(one(JsonMembers, freed), '{"debug": true}')
    assert json.loads(content or "")[KEY] == ["b:2", ADDRESS]
    assert Absent(DROPIN) in trust.steps(site(), freed, Mode.APPLY)


def test_a_flag_that_the_unit_had_once_does_not_stay_with_us() -> None:
    once = UNIT.replace("fd://\n", "fd:// --insecure-registry a:1\n")
    written = str(one(File, Trust.read(probed({PACKAGED: once}))).content)
    found = Trust.read(probed({PACKAGED: once.replace("a:1", "c:3"), DROPIN: written}))
    assert found.added == (ADDRESS,)
    again = str(one(File, found).content)
    assert "--insecure-registry c:3 $" in again
    assert "a:1" not in again


def test_the_registry_s_earlier_port_goes_where_it_is_ours_and_stays_where_it_may_be_another_s() -> None:
    other = UNIT.replace("fd://\n", "fd:// --insecure-registry a:1\n")
    ours = trust.dropin("/usr/bin/docker daemon -H fd:// --insecure-registry a:1", ["198.51.100.11:8700"])
    written = str(one(File, Trust.read(probed({PACKAGED: other, DROPIN: ours}))).content)
    assert f'REGISTRIES=--insecure-registry {ADDRESS}"' in written
    settings = f'{{"{KEY}": ["198.51.100.11:8700"]}}'
    content = after(one(JsonMembers, Trust.read(probed(settings=settings))), settings)
    assert json.loads(content or "")[KEY] == ["198.51.100.11:8700", ADDRESS]


@pytest.mark.parametrize("files", [{PACKAGED: UNIT}, {PACKAGED: EDITED}, {PACKAGED: SYSCONFIG}])
@pytest.mark.parametrize("settings", [None, "{}", f'{{"{KEY}": []}}', f'{{"{KEY}": ["b:2"]}}'])
def test_the_key_is_never_in_both(files: dict[str, str], settings: str | None) -> None:
    environment = {"/etc/sysconfig/docker": "OPTIONS=--insecure-registry=a:1\n"}
    found = Trust.read(probed(files, environment=environment, settings=settings))
    dropins = [str(step.content) for step in trust.steps(site(), found, Mode.APPLY) if isinstance(step, File)]

    listed = json.loads(after(one(JsonMembers, found), settings) or settings or "{}").get(KEY)
    ours = insecure(" ".join(dropins).replace("=--insecure", " --insecure").replace('"', " ").split())

    assert listed is None or not found.flags
    trusted = {*(listed or ()), *found.flags, *ours}
    assert ADDRESS in trusted
    assert "b:2" in trusted or "b:2" not in (settings or "")


def test_an_address_within_a_trusted_network_is_trusted() -> None:
    settings = f'{{"{KEY}": ["198.51.100.0/24"]}}'
    (members,) = (
        s for s in trust.steps(site(), Trust.read(probed(settings=settings)), Mode.APPLY) if isinstance(s, JsonMembers)
    )
    assert after(members, settings) is None


def test_a_plan_foresees_the_package() -> None:
    labels = [step.label for step in trust.steps(site(), Trust(), Mode.PLAN)]
    assert labels[0] == "package docker-engine"
    assert labels[-1] == "service docker"


@pytest.mark.parametrize("mode", list(Mode))
def test_a_host_that_did_not_tell_is_left_untouched(mode: Mode) -> None:
    """Its unit may have the flag, and containers may run: what is written blindly could keep Docker from starting."""
    (step,) = trust.steps(site(), Trust(problem="node2: no answer within 60 s"), mode)
    assert step.label == "service docker"
    with pytest.raises(StepFailed, match="node2: no answer within 60 s"):
        step.plan("")


SHELL = UNIT.replace(
    "ExecStart=/usr/bin/docker daemon -H fd://",
    "EnvironmentFile=-/etc/sysconfig/docker\n"
    "ExecStart=/bin/sh -c '/usr/bin/docker daemon -H fd:// $INSECURE_REGISTRY 2>&1 | logger -t docker'",
)
"""Docker through a shell, for the sake of a pipe."""


def test_where_a_shell_puts_the_flag_in_nothing_is_touched() -> None:
    flag = {"/etc/sysconfig/docker": "INSECURE_REGISTRY='--insecure-registry a:1'\n"}
    found = Trust.read(probed({PACKAGED: SHELL}, environment=flag, told=None, version="1.10.3"))
    (step,) = trust.steps(site(), found, Mode.APPLY)
    with pytest.raises(StepFailed, match="is in /etc/sysconfig/docker, and the unit runs Docker through a shell"):
        step.plan(service(77, None))
    trusting = Trust.read(probed({PACKAGED: SHELL}, environment=flag, told=(ADDRESS,)))
    (step,) = trust.steps(site(), trusting, Mode.APPLY)
    assert step.plan(service(77, (ADDRESS,))) is None
    labels = [step.label for step in trust.steps(site(TLS), found, Mode.APPLY, b"CA")]
    assert labels[1:] == [f"file /etc/docker/certs.d/{ADDRESS}/ca.crt", "service docker"]
    # without the flag, daemon.json is the place
    without = Trust.read(probed({PACKAGED: SHELL}))
    assert json.loads(after(one(JsonMembers, without), None) or "") == {KEY: [ADDRESS]}


# tls


def test_tls_brings_the_ca_and_takes_the_registry_off_the_insecure_ones() -> None:
    settings = f'{{"{KEY}": ["b:2", "{ADDRESS}"]}}'
    found = Trust.read(probed(settings=settings))
    written = one(File, found, site(TLS), b"CA")
    assert (written.path, written.content) == (f"/etc/docker/certs.d/{ADDRESS}/ca.crt", b"CA")
    members = one(JsonMembers, found, site(TLS))
    assert after(members, settings) == f'{{"{KEY}": ["b:2"]}}'
    assert after(members, None) is None
    assert Absent(DROPIN) in trust.steps(site(TLS), replace(found, added=(ADDRESS,)), Mode.APPLY)


def test_tls_empties_the_list_of_a_daemon_whose_daemon_json_was_removed() -> None:
    """A reload without the key leaves the daemon's list as it is (seen with Docker 20.10: rm, SIGHUP, docker info)."""
    tls = site(TLS)
    found = Trust.read(probed(told=(ADDRESS,)))
    assert (found.listed, trust.trusts(found.effective, ADDRESS)) == (None, True)
    written = after(one(JsonMembers, found, tls), None)
    assert written is not None
    assert json.loads(written) == {KEY: []}
    change = one(Docker, found, tls).plan(service(77, (ADDRESS,)), frozenset({SETTINGS}))
    assert change is not None
    assert change.actions == ("reload",)

    # once it is taken over, nothing is left to do
    settled = Trust.read(probed(settings=written))
    assert after(one(JsonMembers, settled, tls), written) is None
    assert one(Docker, settled, tls).plan(service(77, ())) is None


@pytest.mark.parametrize(("removed", "restarts"), [(9600.0, True), (9400.0, False)])
def test_tls_restarts_a_daemon_that_does_not_tell_after_daemon_json_was_removed(removed: float, restarts: bool) -> None:
    """It started at 9500, by the host's clock."""
    found = Trust.read(probed(version="1.11.1", told=None))
    change = one(Docker, found, site(TLS)).plan(f"{service(77, None)}removed={removed}\n")
    assert (change is not None) is restarts
    assert one(Docker, found).plan(f"{service(77, None)}removed={removed}\n") is None


def test_a_byte_order_mark_is_kept_from_docker_23_on_and_refused_before() -> None:
    marked = "\ufeff" + json.dumps({"debug": True}) + "\n"
    new = Trust.read(probed(settings=marked, version="23.0.1"))
    written = after(one(JsonMembers, new), marked)
    assert written is not None
    assert written.startswith("\ufeff{")
    assert json.loads(written.removeprefix("\ufeff")) == {"debug": True, KEY: [ADDRESS]}
    assert Trust.read(probed(settings=written)).listed == (ADDRESS,)

    old = Trust.read(probed(settings=marked))
    with pytest.raises(StepFailed, match=r"begins with a byte order mark .*Docker accepts only from version 23 on"):
        after(one(JsonMembers, old), marked)


@pytest.mark.parametrize(("lost", "names"), [(True, True), (False, False)])
def test_a_file_that_was_removed_is_seen_by_its_folder(lost: bool, names: bool, tmp_path: Path) -> None:
    """A folder changes with its entries; with the creation of those that are there, nothing was removed."""
    folder = tmp_path / "docker"
    (folder / "certs.d" / ADDRESS).mkdir(parents=True)
    (folder / "key.json").touch()
    if lost:
        later = time.time() + 60
        os.utime(folder, (later, later))
    script = trust._PROBE_REMOVED.format(file=f"{folder}/daemon.json", folder=folder)
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("removed=") is names


def test_tls_leaves_the_key_in_one_place_too() -> None:
    other = UNIT.replace("fd://\n", "fd:// --insecure-registry a:1\n")
    settings = f'{{"{KEY}": ["b:2", "{ADDRESS}"]}}'
    found = Trust.read(probed({PACKAGED: other}, settings=settings))
    made = [step for step in trust.steps(site(TLS), found, Mode.APPLY, b"CA") if isinstance(step, File)]
    assert [step.path for step in made] == [f"/etc/docker/certs.d/{ADDRESS}/ca.crt", DROPIN]
    assert 'REGISTRIES=--insecure-registry b:2"' in str(made[1].content)
    assert after(one(JsonMembers, found, site(TLS)), settings) == "{}"


@pytest.mark.parametrize(
    ("files", "settings", "reason"),
    [
        ({PACKAGED: EDITED}, None, f"--insecure-registry in {PACKAGED} means {ADDRESS}"),
        ({PACKAGED: UNIT}, f'{{"{KEY}": ["198.51.100.0/24"]}}', "198.51.100.0/24 among the insecure-registries"),
    ],
)
def test_tls_refuses_what_would_keep_docker_from_verifying(
    files: dict[str, str], settings: str | None, reason: str
) -> None:
    found = Trust.read(probed(files, settings=settings))
    with pytest.raises(StepFailed, match=reason):
        trust.docker(site(TLS), ADDRESS, found).plan(service(77, ()))


def test_back_to_insecure_takes_the_ca_away() -> None:
    ca = Absent(f"/etc/docker/certs.d/{ADDRESS}/ca.crt")
    assert ca in trust.steps(site(), Trust(ca="1" * 64), Mode.APPLY)
    assert ca not in trust.steps(site(), Trust(), Mode.APPLY)


# the service


def docker(**found: object) -> Docker:
    base = Trust.read(probed(containers=("/registry always registry:2.3.0", "/mesos-S0.1  centos:7.2.1511")))
    return trust.docker(site(), ADDRESS, replace(base, **found))  # type: ignore[arg-type]


def test_a_daemon_that_names_the_registry_is_left_alone_whatever_is_newer() -> None:
    assert docker().plan(service(77, (ADDRESS,), started=100.0, watched=9999.0)) is None


def test_a_changed_daemon_json_needs_a_restart_where_the_client_cannot_show_that_it_was_read() -> None:
    # `docker info -f` is 1.13's (moby/moby, v1.11.1, api/client/info.go): a client may be older than its daemon
    change = docker(told=None, version="20.10.24").plan(service(77, None), frozenset({SETTINGS}))
    assert change is not None
    assert (change.summary, change.actions) == ("restart", ("restart",))


def test_a_changed_daemon_json_is_read_anew_without_a_restart() -> None:
    change = docker().plan(service(77, ()), frozenset({SETTINGS}))
    assert change is not None
    assert (change.summary, change.gate) == ("reload", None)
    assert "kill -s HUP" in docker().script(change)
    # a run that died between the file and the signal is mended by the next one
    left = docker().plan(service(77, ()))
    assert left is not None
    assert left.summary == "reload"
    # it waits for the entry that means the registry, which may be a network's
    assert f"grep -qF -e '\"{ADDRESS}\"'" in docker().script(change)
    assert "grep -qF -e '\"198.51.100.0/24\"'" in docker(listed=("198.51.100.7/24",)).script(change)
    assert f"grep -qF -e '\"{ADDRESS}\"'" in docker(listed=(f"http://{ADDRESS}",)).script(change)


def test_before_17_06_it_is_restarted_behind_the_gate_that_names_the_containers() -> None:
    change = docker(version="1.11.1").plan(service(77, None), frozenset({SETTINGS}))
    assert change is not None
    assert (change.summary, change.gate) == ("restart", "restart-docker")
    assert "ends 2 containers: registry (registry:2.3.0), mesos-S0.1 (centos:7.2.1511)" in change.consequence


def test_a_daemon_that_does_not_tell_is_judged_by_the_times_of_its_files() -> None:
    old = docker(version="1.11.1")
    assert old.plan(service(77, None, started=500.0, watched=9400.0)) is None  # it started at 9500
    change = old.plan(service(77, None, started=500.0, watched=9600.0))
    assert change is not None
    assert change.actions == ("restart",)


@pytest.mark.parametrize(
    ("wanted", "arguments", "pid", "restarts"),
    [
        (site(), (), 77, True),  # the flag was added to the unit after the daemon had started
        (site(), (ADDRESS,), 77, False),
        (site(), (), 78, False),  # another process than the one that was looked at: restarted since
        (site(TLS), (ADDRESS,), 77, True),  # the flag was taken out of the unit
        (site(TLS), ("a:1",), 77, False),
    ],
)
def test_a_daemon_that_does_not_tell_is_judged_by_its_command_line_too(
    wanted: Site, arguments: tuple[str, ...], pid: int, restarts: bool
) -> None:
    """As the document does it, with 1.11: the unit edited, `systemctl daemon-reload`, and no restart."""
    flags = (ADDRESS,) if wanted.registry.security == "insecure" else ()
    found = Trust(installed=True, pid=77, version="1.11.1", flags=flags, sources=(PACKAGED,), arguments=arguments)
    change = trust.docker(wanted, ADDRESS, found).plan(service(pid, None))
    assert (change is not None and change.actions == ("restart",)) is restarts


@pytest.mark.parametrize("found", [{"flags": ("a:1",)}, {"arguments": ("a:1",)}])
def test_a_command_line_needs_a_restart(found: dict[str, object]) -> None:
    change = docker(**found).plan(service(77, ()), frozenset({DROPIN}))
    assert change is not None
    assert (change.actions, change.gate) == (("restart",), "restart-docker")


@pytest.mark.parametrize("found", [{"live_restore": True}, {"containers": ()}])
def test_a_restart_that_ends_nothing_needs_no_gate(found: dict[str, object]) -> None:
    change = docker(version="1.13.0", **found).plan(service(77, ()), frozenset({SETTINGS}))
    assert change is not None
    assert (change.summary, change.gate) == ("restart", None)


def test_a_drop_in_that_comes_after_ours_is_named() -> None:
    later = "/etc/systemd/system/docker.service.d/zz.conf"
    text = "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd --insecure-registry a:1\n"
    found = Trust.read(probed({PACKAGED: UNIT, later: text}))
    with pytest.raises(StepFailed, match=f"{later} sets ExecStart after {DROPIN}"):
        trust.docker(site(), ADDRESS, found).plan(service(77, ()))


def test_another_configuration_file_is_named() -> None:
    found = Trust.read(probed({PACKAGED: UNIT.replace("fd://\n", "fd:// --config-file /etc/docker/other.json\n")}))
    (step,) = trust.steps(site(), found, Mode.APPLY)
    with pytest.raises(StepFailed, match=r"reads /etc/docker/other\.json in the place of"):
        step.plan(service(77, ()))


# showing


def test_the_table_says_who_trusts_by_what_and_what_is_odd() -> None:
    found = {
        "node1": Trust.read(probed(settings=json.dumps({KEY: [ADDRESS]}), told=(ADDRESS,))),
        "node2": Trust.read(probed(told=("198.51.100.11:8700",))),
        "node3": Trust.read(probed(settings=json.dumps({KEY: [ADDRESS]}))),
        "node4": Trust.read(probed({PACKAGED: EDITED}, settings=json.dumps({KEY: []}), told=(ADDRESS,))),
        "node5": Trust(),
        "node6": Trust(problem="no route"),
    }
    frame = trust.table(site(), found).frame.set_index("host")
    assert list(frame[f"trusts {ADDRESS}"]) == [
        "✓ insecure",
        "✗ no",
        "✗ not before Docker is restarted",
        "✓ insecure",
        "– Docker is not installed",
        "✗ no route",
    ]
    assert list(frame["by"])[:4] == [SETTINGS, "", SETTINGS, PACKAGED]
    assert frame.loc["node2", "worth knowing"] == "⚠ 198.51.100.11:8700 is the same host with another port"
    assert "will not start again" in str(frame.loc["node4", "worth knowing"])


@pytest.mark.parametrize(
    ("ca", "told", "good", "why"),
    [
        (sha256(b"CA"), (), True, "by the CA"),
        ("", (), False, "its CA is missing"),
        (sha256(b"another"), (), False, "another CA is there"),
        (sha256(b"CA"), (ADDRESS,), False, "as an insecure one, without a look at its certificate"),
    ],
)
def test_trust_by_the_ca(ca: str, told: tuple[str, ...], good: bool, why: str) -> None:
    assert trust.judged(site(TLS), Trust.read(probed(ca=ca, told=told)), b"CA") == (good, why)

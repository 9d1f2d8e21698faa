"""The profile centos7: its shims refuse what CentOS 7's programs refuse, as they do, and print as they do.

What the old programs print is asserted from their sources, named in each shim; the shims are run by dash with their
folder moved below a temporary one, and with doubles of the programs behind them where those matter.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from runbook.errors import LabError
from runbook.lab.cluster import up
from runbook.lab.profile import PROFILES, Profile
from runbook.lab.rpms import RECIPES

HOME = "/opt/centos7"
Run = Callable[..., "tuple[int, str, str]"]


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """The folder of the programs that the shims stand before: this machine's, or what a test puts there."""
    folder = tmp_path / "programs"
    folder.mkdir()
    return folder


@pytest.fixture
def run(tmp_path: Path, programs: Path) -> Run:
    """Run a shim with arguments: its exit status, standard output and standard error."""
    home = tmp_path / "centos7"
    files = {path: entry for path, entry in Profile().files().items() if path.startswith(HOME[1:])}
    texts = {path.removeprefix(f"{HOME[1:]}/"): entry.data.decode() for path, entry in files.items() if entry.data}
    texts["bin/docker"] = (RECIPES / "docker-engine" / "docker-1.11").read_text()
    texts["lib/docker-flags.sh"] = (RECIPES / "docker-engine" / "flags-1.11.sh").read_text()
    for path, text in texts.items():
        target = home / path
        target.parent.mkdir(parents=True, exist_ok=True)
        moved = text.replace(HOME, str(home)).replace("for place in /usr/bin", f"for place in {programs} /usr/bin")
        moved = re.sub(r"/usr/bin/(systemctl|journalctl|docker|ss)\b", rf"{programs}/\1", moved)
        target.write_text(moved)
        target.chmod(0o755)
    for path, entry in files.items():
        if entry.link:
            (home / path.removeprefix(f"{HOME[1:]}/")).symlink_to(entry.link)

    def shim(name: str, *arguments: str) -> tuple[int, str, str]:
        done = subprocess.run([home / "bin" / name, *arguments], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    return shim


def program(folder: Path, name: str, script: str) -> None:
    """Put a double of a program into `folder`."""
    (folder / name).write_text(f"#!/bin/dash\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        ("stat --cached=always /etc", 1, "stat: unrecognized option '--cached=always'\nTry 'stat --help' for"),
        ("timeout -v 1 true", 125, "timeout: invalid option -- 'v'\nTry 'timeout --help' for"),
        ("ls --zero /", 2, "ls: unrecognized option '--zero'"),
        ("head -z /etc/hostname", 1, "head: invalid option -- 'z'"),
        ("sha256sum --ignore-missing -c x", 1, "sha256sum: unrecognized option '--ignore-missing'"),
        ("env -S true", 125, "env: invalid option -- 'S'"),
        ("sync -f /etc", 1, "sync: invalid option -- 'f'"),
        ("systemctl show --value -p MainPID x", 1, "systemctl: unrecognized option '--value'\n"),
        ("systemctl is-system-running --wait", 1, "systemctl: unrecognized option '--wait'\n"),
        ("systemctl revert x", 1, "Unknown operation 'revert'.\n"),
        ("journalctl -g x", 1, "journalctl: invalid option -- 'g'\n"),
        ("journalctl -q -o short-full", 1, "Unknown output format 'short-full'.\n"),
        ("journalctl -q --since 2026-01-02T03:04:05", 1, "Failed to parse timestamp: 2026-01-02T03:04:05\n"),
        ("ip -br addr", 255, 'Option "-br" is unknown, try "ip -help".\n'),
        ("curl --retry-connrefused x", 2, "curl: option --retry-connrefused: is unknown\n"),
        ("find / -files0-from -", 1, "find: unknown predicate `-files0-from'\n"),
        ("tar --sort=name -c x", 2, "tar: unrecognized option '--sort=name'\n"),
        ("flock --no-fork x true", 64, "flock: unrecognized option '--no-fork'\n"),
        ("ps -o pid,times -p 1", 1, 'error: unknown user-defined format specifier "times"\n'),
        ("docker image ls", 1, "docker: 'image' is not a docker command.\nSee 'docker --help'.\n"),
        ("docker info -f x", 125, "flag provided but not defined: -f\nSee 'docker info --help'.\n"),
        ("docker exec -e A=b c true", 125, "flag provided but not defined: -e\nSee 'docker exec --help'.\n"),
        ("docker login --password-stdin x", 125, "flag provided but not defined: --password-stdin\n"),
        ("docker logs x --tail 5", 1, 'docker: "logs" requires 1 argument.\n'),
        ("docker run --rm -d x", 1, "Conflicting options: --rm and -d\n"),
    ],
)
def test_what_the_old_program_does_not_know_is_refused_as_it_refuses(
    run: Run, command: str, status: int, message: str
) -> None:
    done = run(*command.split())

    assert (done[0], done[2][: len(message)]) == (status, message)
    assert done[1] == ""


@pytest.mark.parametrize(
    "command",
    [
        "stat -L -c %a /etc",
        "head -1 /etc/passwd",
        "tail -n +2 /etc/passwd",
        "timeout -k 1 5 true",
        "date -u +%Y",
        "sha256sum /etc/passwd",
        "find /etc/passwd -newermt @0",
        "ls -t --color=never /etc/passwd",
        "env -u HOME A=b true",
    ],
)
def test_what_it_knows_is_done_by_the_program(run: Run, command: str) -> None:
    plain = subprocess.run(command.split(), capture_output=True, text=True, check=True)

    assert run(*command.split()) == (0, plain.stdout, plain.stderr)


def test_sync_ignores_what_it_is_given(run: Run, programs: Path) -> None:
    program(programs, "sync", 'echo "synced $*"')

    assert run("sync", "/etc/passwd") == (0, "synced \n", "sync: ignoring all arguments\n")


def test_a_time_in_iso_8601_has_its_zone_without_a_colon(run: Run) -> None:
    assert run("date", "-u", "-Iseconds", "-d", "@0") == (0, "1970-01-01T00:00:00+0000\n", "")


def test_ss_ends_with_0_where_it_does_not_know_an_option_and_prints_no_names(run: Run, programs: Path) -> None:
    header = "State  Recv-Q Send-Q Local Address:Port Peer Address:Port"
    program(
        programs,
        "ss",
        f"echo '{header} Process'; echo 'LISTEN 0 50 *:2181 *:* users:((\"java\",pid=7,fd=4))'; "
        "echo 'LISTEN 0 9 0.0.0.0:22 0.0.0.0:*'; echo 'LISTEN 0 9 [::1]:25 [::]:*'",
    )

    assert run("ss", "-H", "-ltn") == (0, "Usage: ss [ OPTIONS ]\n", "ss: invalid option -- 'H'\n")
    rows = ['LISTEN 0 50 :::2181 :::* users:(("java",7,4))', "LISTEN 0 9 *:22 *:*", "LISTEN 0 9 ::1:25 :::*"]
    assert run("ss", "-ltnp")[1].splitlines() == [header, *rows]


def test_systemctl_shows_the_properties_of_219_in_its_words(run: Run, programs: Path) -> None:
    shown = "MainPID=7\nNRestarts=2\nEnvironmentFiles=/etc/default/a (ignore_errors=yes)\nInvocationID=x\n"
    program(programs, "systemctl", f"printf '%s' '{shown}Listen=/run/a.sock (Stream)\nDropInPaths=\n'")

    assert run("systemctl", "show", "-p", "MainPID", "a")[1].splitlines() == [
        "MainPID=7",
        "EnvironmentFile=/etc/default/a (ignore_errors=yes)",
        "ListenStream=/run/a.sock",
        "DropInPaths=",
    ]


def test_a_unit_that_is_not_in_memory_is_unknown_and_one_inactive_unit_is_enough_for_a_3(
    run: Run, programs: Path
) -> None:
    state = 'case "$1 $2" in ("is-active a") echo active ;; ("is-active "*) echo inactive ;; esac'
    program(programs, "systemctl", f'{state}; case "$*" in (list-units*" b") echo b.service ;; esac')

    assert run("systemctl", "is-active", "a", "b", "c") == (3, "active\ninactive\nunknown\n", "")
    assert run("systemctl", "is-active", "-q", "a") == (0, "", "")


DOCKER = """
command=$1; shift
case $command in
(inspect)
    status=0
    for word; do
        case $word in
        (-*|'{{.Name}}'|container) ;;
        (gone) echo "Error: No such container: gone" >&2; status=1 ;;
        (*) echo "/$word" ;;
        esac
    done
    exit $status ;;
(load) echo 'Loaded image: a:1' ;;
(images)
    case "$*" in
    (*'t\\t'*) printf 't\\t1\\ta1\\tsha256:d\\ta:a1 <none>\\nt\\t2\\tb1\\t<none>\\tb:b1 <none>\\n' ;;
    (*) printf 'd\\t1\\ta1\\tsha256:d\\ta:<none> sha256:d\\nd\\t2\\tb1\\t<none>\\tb:<none> <none>\\n' ;;
    esac ;;
(info) printf 'Client:\\n Debug Mode: false\\n\\nServer:\\n Containers: 1\\n  Running: 1\\n Cgroup Driver: cgroupfs\\n'
    printf ' Swarm: inactive\\n runc version: x\\n Security Options:\\n  seccomp\\n Live Restore Enabled: false\\n' ;;
esac
"""


def test_docker_inspect_stops_at_the_first_that_is_missing(run: Run, programs: Path) -> None:
    program(programs, "docker", DOCKER)

    inspect = ["docker", "inspect", "--type", "container", "-f", "{{.Name}}"]
    assert run(*inspect, "a", "b") == (0, "/a\n/b\n", "")
    assert run(*inspect, "a", "gone", "b") == (1, "/a\n", "Error: No such container: gone\n")
    assert run(*inspect, "gone", "b") == (1, "", "Error: No such container: gone\n")
    assert run("docker", "inspect", "gone") == (1, "[]\n", "Error: No such image or container: gone\n")


def test_docker_prints_what_1_11_prints(run: Run, programs: Path) -> None:
    program(programs, "docker", DOCKER)

    rows = run("docker", "images", "--digests", "--format", "{{.Repository}}:{{.Tag}} {{.Digest}}")[1]
    assert rows.splitlines() == ["a:a1 <none>", "a:<none> sha256:d", "b:b1 <none>"]
    assert run("docker", "images", "--format", "{{.ID}} {{.Containers}}")[:2] == (
        0,
        'Template parsing error: template: :1:2: executing "" at <.Containers>: can\'t evaluate field Containers in '
        "type *formatter.imageContext\n",
    )
    assert run("docker", "load", "-i", "x")[1] == ""
    assert run("docker", "info")[1] == "Containers: 1\n Running: 1\nCgroup Driver: cgroupfs\n"


def test_every_shim_is_a_script_of_dash_and_names_its_source() -> None:
    shims = [*(PROFILES / "centos7" / "opt" / "centos7" / "bin").iterdir(), RECIPES / "docker-engine" / "docker-1.11"]
    for shim in shims:
        lines = shim.read_text().splitlines()
        assert lines[0] == "#!/bin/dash"
        assert lines[1].startswith("# ")
        subprocess.run(["dash", "-n", shim], check=True)


def test_sh_is_bash_unless_another_shell_is_given(tmp_path: Path) -> None:
    shell = tmp_path / "bash42"
    shell.write_bytes(b"\x7fELF42")

    assert Profile().files()["usr/bin/sh"].link == "bash"
    assert Profile(shell=shell).files()["usr/bin/sh"].data == b"\x7fELF42"
    assert Profile("debian").files() == {}
    assert Profile("debian", shell).files().keys() == {"usr/bin/sh"}


def test_the_labels_of_a_node_tell_its_profile(tmp_path: Path) -> None:
    for profile in (Profile(), Profile("debian"), Profile(shell=tmp_path / "bash42")):
        assert Profile.of(profile.labels) == profile
    assert Profile.of({}) == Profile("debian")  # a node of a lab that knew no profiles


def test_a_profile_or_a_shell_that_is_not_there_is_refused_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNBOOK_LAB_DIR", str(tmp_path / "lab"))
    script = tmp_path / "sh"
    script.write_text("#!/bin/sh\n")

    with pytest.raises(LabError, match="there is no profile centos6"):
        up(profile="centos6")
    with pytest.raises(LabError, match="cannot be read: No such file"):
        up(shell=tmp_path / "none")
    with pytest.raises(LabError, match="is not a Linux program"):
        up(shell=script)
    monkeypatch.setenv("RUNBOOK_LAB_PROFILE", "centos5")
    with pytest.raises(LabError, match="there is no profile centos5"):
        up()
    assert not (tmp_path / "lab").exists()

"""The probes and scripts of steps, run for real by this machine's shells in a folder of the test."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from local_host import ME, MY_GROUP, PRESENT, LocalHost
from test_steps_golden import GOLDEN, step_of

from runbook.errors import StepFailed
from runbook.remote import steps
from runbook.remote.shell import Piece
from runbook.remote.steps import CONTENT_CAP, Command, CommandService, Directory, File, Line, Lines

PROBES: Mapping[str, dict[str, Any]] = yaml.safe_load((GOLDEN / "probes.yml").read_text())
ROOT = os.getuid() == 0
MINE = {"owner": ME, "group": MY_GROUP}

pytestmark = pytest.mark.skipif(not PRESENT, reason="neither dash nor bash is here")


@pytest.fixture(params=PRESENT)
def host(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalHost:
    monkeypatch.setattr(steps, "STATE_DIR", str(tmp_path / "state"))
    return LocalHost(request.param, tmp_path / "state")


Program = Callable[[str, str], None]


@pytest.fixture
def program(host: LocalHost, tmp_path: Path) -> Program:
    """Puts a double of a program on the host's PATH: its name, and what it does."""
    folder = tmp_path / "bin"
    folder.mkdir()
    host.environment["PATH"] = f"{folder}:{os.environ['PATH']}"

    def put(name: str, text: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)

    return put


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "it's a tree"
    folder.mkdir()
    return folder


def plant(folder: Path, members: Mapping[str, Any]) -> None:
    for name, content in members.items():
        path = folder / name
        if isinstance(content, dict):
            path.mkdir(mode=0o755)
            plant(path, content)
        elif content.startswith("-> "):
            path.symlink_to(content.removeprefix("-> "))
        else:
            path.write_text(content)
            path.chmod(0o644)


def filled(data: Any, values: Mapping[str, str]) -> Any:
    """The data with every `{name}` in its texts replaced."""
    if isinstance(data, str):
        return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), data)
    if isinstance(data, dict):
        return {filled(key, values): filled(value, values) for key, value in data.items()}
    return [filled(value, values) for value in data] if isinstance(data, list) else data


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_prints_the_state(host: LocalHost, tree: Path, program: Program, name: str) -> None:
    values = {"tree": str(tree), "me": ME, "us": MY_GROUP, "uid": str(os.getuid()), "gid": str(os.getgid())}
    case = filled(PROBES[name], values)
    plant(tree, case["tree"])
    for double, text in case.get("programs", {}).items():
        program(double, text)
    before = sorted(tree.rglob("*"))
    state = host.probe(step_of(case))
    wanted = r"[0-9]+(\.[0-9]+)?".join(map(re.escape, case["state"].split("#")))
    assert re.fullmatch(wanted, state), state
    assert sorted(tree.rglob("*")) == before
    assert not host.state.exists()


# files

CONTENTS = {
    "text": b"a\nb\n",
    "empty": b"",
    "no newline at the end": b"a\nb",
    "every byte": bytes(range(256)) * 3,
    "looks like the end of a heredoc": b"_END_\n'EOF'\n$(id)\n`id`\n",
    "larger than what is shown": b"0123456789abcde\n" * 20_000,
}
NAMES = [
    "plain",
    "with space",
    "it's",
    'quo"te',
    "new\nline",
    "newline at its end\n",
    "ünïcödé",
    "$(id) `id` \\",
    "-rf",
    "*",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_any_name_is_created_replaced_and_backed_up(host: LocalHost, tree: Path, name: str) -> None:
    path = tree / name
    created = host.apply(File(str(path), "one\n", **MINE))
    assert created is not None
    assert (created.summary, path.read_bytes()) == ("create", b"one\n")
    assert not host.state.joinpath("backup").exists()
    replaced = host.apply(File(str(path), "two\n", **MINE))
    assert replaced is not None
    assert (replaced.summary, path.read_bytes()) == ("replace content", b"two\n")
    assert list(tree.iterdir()) == [path]
    backup = Path(f"{host.state}/backup/{host.record}{path}")
    assert backup.read_bytes() == b"one\n"
    assert host.state.joinpath("backup").stat().st_mode & 0o777 == 0o700
    assert host.leftovers() == []


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("before", [None, *CONTENTS.values()], ids=["absent", *CONTENTS])
def test_any_content_takes_the_place_of_any_other(
    host: LocalHost, tree: Path, before: bytes | None, content: bytes
) -> None:
    path = tree / "file"
    if before is not None:
        path.write_bytes(before)
        path.chmod(0o644)
    change = host.apply(File(str(path), content, **MINE))
    assert path.read_bytes() == content
    assert (change is None) == (before == content)
    assert change is None or change.diff or not content


def test_the_first_backup_of_a_record_stays(host: LocalHost, tree: Path) -> None:
    path = tree / "file"
    path.write_text("before the record")
    for content in ("one", "two"):
        host.apply(File(str(path), content, **MINE))
    assert Path(f"{host.state}/backup/{host.record}{path}").read_text() == "before the record"
    host.record = "another"
    host.apply(File(str(path), "three", **MINE))
    assert Path(f"{host.state}/backup/another{path}").read_text() == "two"


def test_only_mode_and_owner_are_set_where_the_content_is_right(host: LocalHost, tree: Path) -> None:
    path = tree / "file"
    path.write_text("a")
    path.chmod(0o600)
    inode = path.stat().st_ino
    change = host.apply(File(str(path), "a", mode="0755", **MINE))
    assert change is not None
    assert (change.summary, change.diff) == ("set mode and owner", "-mode: 600\n+mode: 755\n")
    assert (path.stat().st_mode & 0o7777, path.stat().st_ino) == (0o755, inode)


@pytest.mark.skipif(not ROOT, reason="only root gives files away")
def test_owners_are_names_or_numbers(host: LocalHost, tree: Path) -> None:
    path = tree / "file"
    host.apply(File(str(path), "a", owner="nobody", group="nogroup"))
    assert host.plan(File(str(path), "a", owner="65534", group="65534")) is None
    host.apply(File(str(path), "a", owner="12345", group="54321"))  # that have no names
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 54321)


def test_new_content_is_never_readable_by_more_than_the_wanted_mode(
    host: LocalHost, tree: Path, program: Program
) -> None:
    program("chown", 'for last; do :; done; stat -c %a "${last%/*}" >> "$SEEN"; exec /bin/chown "$@"')
    host.environment["SEEN"] = str(tree.parent / "seen")
    host.apply(File(str(tree / "secret"), "hunter22", mode="0600", secret=True, **MINE))
    assert (tree.parent / "seen").read_text() == "700\n"  # of the folder that it was staged in
    assert (tree / "secret").stat().st_mode & 0o7777 == 0o600


def test_a_file_that_changed_since_it_was_read_is_refused(host: LocalHost, tree: Path) -> None:
    path = tree / "file"
    step = File(str(path), "wanted", **MINE)
    for before, meanwhile in ((None, "new"), ("old", "newer"), ("old", None)):
        path.unlink(missing_ok=True)
        if before is not None:
            path.write_text(before)
        change = host.plan(step)
        assert change is not None
        path.unlink(missing_ok=True)
        if meanwhile is not None:
            path.write_text(meanwhile)
        frame = host.make(step, change)
        assert frame.status == 1
        assert "was changed by somebody else" in frame.err
        assert (path.read_text() if path.exists() else None) == meanwhile
    assert host.leftovers() == []


def test_a_mode_is_not_set_on_what_changed_since(host: LocalHost, tree: Path) -> None:
    path, other = tree / "file", tree / "other"
    path.write_text("a")
    other.write_text("precious")
    other.chmod(0o600)
    step = File(str(path), "a", mode="0777", **MINE)
    change = host.plan(step)
    assert change is not None
    path.unlink()
    path.symlink_to(other)
    assert host.make(step, change).status == 1
    assert other.stat().st_mode & 0o777 == 0o600


def test_a_link_is_refused_and_so_is_one_that_came_later(host: LocalHost, tree: Path) -> None:
    path, other = tree / "file", tree / "other"
    other.write_text("precious")
    path.symlink_to(other)
    step = File(str(path), "wanted", **MINE)
    with pytest.raises(StepFailed, match="is a symbolic link to"):
        host.plan(step)
    path.unlink()
    change = host.plan(step)
    assert change is not None
    path.symlink_to(other)
    assert host.make(step, change).status == 1
    assert other.read_text() == "precious"


def test_a_folder_in_the_place_is_refused_and_a_missing_parent_told(host: LocalHost, tree: Path) -> None:
    (tree / "folder").mkdir()
    with pytest.raises(StepFailed, match="not a file but directory"):
        host.plan(File(str(tree / "folder"), "x", **MINE))
    step = File(str(tree / "none" / "file"), "x", **MINE)
    change = host.plan(step)
    assert change is not None
    assert f"folder {tree}/none does not exist" in host.make(step, change).err


def test_readers_see_the_old_or_the_new_content_and_nothing_between(host: LocalHost, tree: Path) -> None:
    path = tree / "file"
    old, new = b"o" * 200_000, b"n" * 200_000
    path.write_bytes(old)
    path.chmod(0o644)
    step = File(str(path), new, **MINE)
    change = host.plan(step)
    assert change is not None
    with open(path, "rb") as opened_before:
        host.make(step, change)
        assert opened_before.read() == old  # the old file is still whole: the new one is another inode
    assert path.read_bytes() == new


def test_content_that_does_not_arrive_whole_is_not_written(host: LocalHost, tree: Path) -> None:
    path = tree / "file"
    step = File(str(path), "wanted", **MINE)
    change = host.plan(step)
    assert change is not None
    damaged = step.script(change).replace("d2FudGVk", "d2FudGVA")
    assert "did not arrive whole" in host.run(Piece("0", damaged))["0"].err
    assert list(tree.iterdir()) == []
    assert host.leftovers() == []


def test_a_script_that_is_killed_leaves_the_old_file(host: LocalHost, tree: Path, program: Program) -> None:
    path = tree / "file"
    path.write_text("old")
    program("dd", "kill -TERM $PPID")  # it brings the file to the disk, before the rename
    step = File(str(path), "new", **MINE)
    change = host.plan(step)
    assert change is not None
    assert host.make(step, change).status == 1
    assert path.read_text() == "old"
    assert host.leftovers() == []


def test_each_file_is_brought_to_the_disk_alone_before_it_is_renamed(
    host: LocalHost, tree: Path, tmp_path: Path, program: Program
) -> None:
    """`sync` of coreutils 8.22 ignores its arguments and syncs all disks (src/sync.c)."""
    path, log = tree / "file", tmp_path / "log"
    path.write_text("old")
    program("sync", f"echo sync >> '{log}'")
    dd, mv = (shutil.which(name) for name in ("dd", "mv"))
    program("dd", f"""echo "dd $*" >> '{log}'; exec {dd} "$@" """)
    program("mv", f"""echo "mv $*" >> '{log}'; exec {mv} "$@" """)
    host.apply(File(str(path), "new", **MINE))
    lines = [re.sub(r"[^ =]*\.runbook\.\w+", "STAGE", line) for line in log.read_text().splitlines()]
    backup = f"{host.state}/backup/{host.record}"
    fsync = "dd if=/dev/null conv=notrunc,fsync status=none of="
    assert lines == [
        f"{fsync}{backup}/.part",
        f"mv -f {backup}/.part {backup}{path}",
        f"{fsync}STAGE/new",
        f"mv -fT STAGE/new {path}",
    ]


# SELinux: labels of inodes in a folder of the test, by doubles of the tools that CentOS 7 has (libselinux-utils,
# policycoreutils, coreutils). restorecon prints as policycoreutils 2.5 does.

POLICY, STAGED, MINE_LABEL = (f"system_u:object_r:{kind}:s0" for kind in ("etc_t", "var_lib_t", "admin_t"))
SELINUX = {
    "selinuxenabled": "",
    "matchpathcon": f"echo {POLICY}",
    "chcon": """
case $1 in
(--reference=*) cat "$LABELS/$(stat -c %i "${1#*=}")" > "$LABELS/$(stat -c %i "$2")";;
(*) echo "$1" > "$LABELS/$(stat -c %i "$2")";;
esac""",
    "restorecon": f"""
for path; do :; done
label=$LABELS/$(stat -c %i "$path")
now=$(cat "$label" 2>/dev/null || echo {STAGED})
case $now in (*:etc_t:*|*:admin_t:*) exit 0;; esac
case $* in (*-v*) echo "restorecon reset $path context $now->{POLICY}";; esac
case $* in (*-n*) ;; (*) echo {POLICY} > "$label";; esac""",
}


@pytest.fixture
def labels(host: LocalHost, tmp_path: Path, program: Program) -> Callable[[Path], str]:
    """A host with SELinux; the label of a path there."""
    folder = tmp_path / "labels"
    folder.mkdir()
    host.environment["LABELS"] = str(folder)
    for name, text in SELINUX.items():
        program(name, text)

    def label(path: Path) -> str:
        found = folder / str(path.stat().st_ino)
        return found.read_text().strip() if found.exists() else STAGED

    return label


def steps_of(path: Path) -> list[steps.Step]:
    return [File(str(path), "new\n", **MINE), Line(str(path), "new")]


@pytest.mark.parametrize("kind", [0, 1])
def test_a_file_has_its_label_before_it_is_renamed(
    host: LocalHost, tree: Path, program: Program, labels: Callable[[Path], str], kind: int
) -> None:
    path = tree / "file"
    program("mv", f'{shutil.which("mv")} "$@"; case $* in (*.runbook.*) kill -9 $PPID;; esac')
    step = steps_of(path)[kind]
    change = host.plan(step)
    assert change is not None
    assert host.make(step, change).status != 0
    assert (path.read_text(), labels(path)) == ("new\n", POLICY)
    assert host.plan(step) is None


@pytest.mark.parametrize("kind", [0, 1])
def test_a_wrong_label_is_seen_and_set(host: LocalHost, tree: Path, labels: Callable[[Path], str], kind: int) -> None:
    path = tree / "file"
    path.write_text("new\n")
    path.chmod(0o644)
    change = host.apply(steps_of(path)[kind])
    assert change is not None
    assert (change.summary, change.diff) == ("set the SELinux label", f"-label: {STAGED}\n+label: {POLICY}\n")
    assert labels(path) == POLICY


def test_a_label_of_an_administrator_stays(
    host: LocalHost, tree: Path, tmp_path: Path, labels: Callable[[Path], str]
) -> None:
    """restorecon leaves customizable types, such as that of a container's volume, alone."""
    path = tree / "file"
    path.write_text("old")
    (tmp_path / "labels" / str(path.stat().st_ino)).write_text(MINE_LABEL)
    host.apply(File(str(path), "new", **MINE))
    assert labels(path) == MINE_LABEL


def test_a_file_system_without_labels_is_no_error(
    host: LocalHost, tree: Path, program: Program, labels: Callable[[Path], str]
) -> None:
    """On NFS chcon fails (Operation not supported), and restorecon passes over what has no seclabel."""
    program("chcon", "echo 'chcon: failed to change context: Operation not supported' >&2; exit 1")
    program("restorecon", "case $* in (*-n*) exit 0;; esac; echo 'Operation not supported' >&2; exit 255")
    path = tree / "file"
    host.apply(File(str(path), "new", **MINE))
    host.apply(File(str(path), "newer", **MINE))
    narrower = File(str(path), "newer", mode="0600", **MINE)
    change = host.plan(narrower)
    assert change is not None
    assert host.make(narrower, change).status == 0
    assert host.plan(narrower) is None


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    if subprocess.run(["mount", *options, str(folder)], capture_output=True, check=False).returncode:
        pytest.skip("no mounts here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(not ROOT, reason="only root mounts")
@pytest.mark.parametrize("kind", ["another filesystem", "the same one, bound"])
@pytest.mark.parametrize("below", ["", "etc/mesos master"])
def test_on_another_mount_the_rename_is_atomic_too(
    host: LocalHost, tree: Path, tmp_path: Path, program: Program, kind: str, below: str
) -> None:
    (tmp_path / "source").mkdir()
    options = ["-t", "tmpfs", "tmpfs"] if kind == "another filesystem" else ["--bind", str(tmp_path / "source")]
    # Across mounts mv would copy, and not be atomic: this one refuses that.
    program(
        "mv",
        "for to; do :; done; shift $(($# - 2))\n"
        '[ "$(stat -c %m "$1")" = "$(stat -c %m "${to%/*}")" ] || exit 9\nexec /bin/mv -fT "$1" "$to"',
    )
    mount = tree / "mount"
    with mounted(mount, *options):
        folder = mount / below
        folder.mkdir(parents=True, exist_ok=True)
        host.apply(File(str(folder / "zk"), "one\n", **MINE))
        host.apply(File(str(folder / "zk"), "two\n", **MINE))
        assert [path.name for path in folder.iterdir()] == ["zk"]
        assert [path.name for path in mount.iterdir()] == [(below or "zk").partition("/")[0]]
    assert Path(f"{host.state}/backup/{host.record}{folder}/zk").read_text() == "one\n"


# lines


def test_lines_leave_mode_owner_and_other_lines_alone(host: LocalHost, tree: Path) -> None:
    path = tree / "zoo.cfg"
    path.write_bytes(
        b"tickTime=2000\r\n# \xff\xfe latin, \xc3\x85ngstr\xc3\xb6m and \x0c form feed\ndataDir=/tmp\nlast"
    )
    path.chmod(0o640)
    change = host.apply(Lines(str(path), (("dataDir=", "dataDir=/var/lib/zookeeper"), ("last", "last"))))
    assert change is not None
    assert path.read_bytes() == (
        b"tickTime=2000\r\n# \xff\xfe latin, \xc3\x85ngstr\xc3\xb6m and \x0c form feed\n"
        b"dataDir=/var/lib/zookeeper\nlast\n"
    )
    assert path.stat().st_mode & 0o7777 == 0o640
    assert "latin" in change.diff


def test_a_line_is_appended_once(host: LocalHost, tree: Path) -> None:
    path = tree / "hosts"
    path.write_text("127.0.0.1 localhost")
    for expected in ("edit", None):
        change = host.apply(Line(str(path), "10.0.0.1 node1"))
        assert (change.summary if change else None) == expected
    assert path.read_text() == "127.0.0.1 localhost\n10.0.0.1 node1\n"


@pytest.mark.skipif(not ROOT, reason="only root gives files away")
def test_lines_keep_an_owner_without_a_name(host: LocalHost, tree: Path) -> None:
    path = tree / "file"
    path.write_text("a=1\n")
    os.chown(path, 12345, 54321)
    host.apply(Line(str(path), "a=2", match="a="))
    assert (path.stat().st_uid, path.stat().st_gid, path.read_text()) == (12345, 54321, "a=2\n")


def test_a_file_that_is_too_large_to_edit_is_refused(host: LocalHost, tree: Path) -> None:
    path = tree / "file"
    path.write_bytes(b"x" * (CONTENT_CAP + 1))
    with pytest.raises(StepFailed, match="larger than"):
        host.plan(Line(str(path), "a"))
    path.write_bytes(b"x" * (CONTENT_CAP - 2))
    with pytest.raises(StepFailed, match="larger than"):
        host.plan(Line(str(path), "a"))
    path.write_bytes(b"x" * (CONTENT_CAP - 3))
    host.apply(Line(str(path), "a"))
    assert path.stat().st_size == CONTENT_CAP


KEYS = st.sampled_from(["a", "bb", "c.c", "é"])
VALUES = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=8)
OTHER = st.one_of(st.binary(max_size=12), KEYS.map(lambda key: f"{key}=x".encode()), VALUES.map(str.encode))


@given(
    content=st.lists(OTHER, max_size=8).map(b"\n".join),
    wanted=st.dictionaries(KEYS, st.none() | VALUES, max_size=4),
)
@settings(deadline=None)
def test_edited_lines_are_right_others_untouched_and_a_second_edit_finds_nothing(
    content: bytes, wanted: dict[str, str | None]
) -> None:
    lines = tuple((re.escape(key) + "=", "" if value is None else f"{key}={value}") for key, value in wanted.items())
    step = Lines("/etc/file", lines)
    change = step.plan(lines_state(content))
    after = content if change is None else change.content
    assert after is not None
    assert step.plan(lines_state(after)) is None
    keys = tuple(f"{key}=".encode() for key in wanted)
    assert [line for line in lines_of(after) if not line.startswith(keys)] == [
        line for line in lines_of(content) if not line.startswith(keys)
    ]
    for key, value in wanted.items():
        found = [line for line in lines_of(after) if line.startswith(f"{key}=".encode())]
        assert found == ([] if value is None else [f"{key}={value}".encode()])


def lines_of(content: bytes) -> list[bytes]:
    return content.removesuffix(b"\n").split(b"\n") if content else []


def lines_state(content: bytes) -> str:
    encoded = base64.b64encode(content).decode()
    return f"kind=file\nsize={len(content)}\nsha256={hashlib.sha256(content).hexdigest()}\ncontent={encoded}\n"


# folders


def test_a_folder_is_created_with_its_parents_and_mended(host: LocalHost, tree: Path) -> None:
    path = tree / "a" / "b c"
    host.apply(Directory(str(path), mode="1770", **MINE))
    assert (path.stat().st_mode & 0o7777, path.parent.stat().st_mode & 0o7777) == (0o1770, 0o755)
    path.chmod(0o700)
    change = host.apply(Directory(str(path), mode="0755", **MINE))
    assert change is not None
    assert change.diff == "-mode: 700\n+mode: 755\n"


# commands


def test_a_command_runs_until_its_probe_holds(host: LocalHost, tree: Path) -> None:
    step = Command("make a file", f"test -e '{tree.parent}/made'", f"touch '{tree.parent}/made'\n")
    assert host.apply(step) is not None
    assert host.apply(step) is None


# services with commands of their own

SLEEPER = """#!/bin/sh
# start and stop of a daemon, as zkServer.sh does it
pid_file={pid_file}
case $1 in
start)
  if [ -f "$pid_file" ] && kill -0 "$(cat "$pid_file")" 2>/dev/null; then echo already running; exit 0; fi
  nohup sh -c '{body}' QuorumPeerMain >/dev/null 2>&1 </dev/null &
  printf %s $! > "$pid_file"; echo STARTED;;
stop) kill "$(cat "$pid_file")"; rm "$pid_file";;
esac
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Any]:
    """Makes a CommandService whose process runs `body`; kills in the end what still runs."""
    pid_file = tmp_path / "daemon.pid"
    seen: list[int] = []

    def make(body: str, **options: Any) -> CommandService:
        program = tmp_path / "daemon.sh"
        program.write_text(SLEEPER.format(pid_file=pid_file, body=body))
        program.chmod(0o755)
        return CommandService(
            "zookeeper", [str(program), "start"], [str(program), "stop"], str(pid_file), "QuorumPeerMain", **options
        )

    yield make
    if pid_file.exists():
        seen.append(int(pid_file.read_text()))
    for pid in seen:
        if runs(pid):
            os.kill(pid, signal.SIGKILL)


def runs(pid: int) -> bool:
    """Whether the daemon runs as process `pid` (of one that has ended and that nobody awaits, the name is empty)."""
    command_line = Path(f"/proc/{pid}/cmdline")
    return command_line.exists() and b"QuorumPeerMain" in command_line.read_bytes()


RUNS = "while :; do sleep 0.1; done"


def test_a_daemon_is_started_restarted_when_its_file_is_newer_and_stopped(
    host: LocalHost, tree: Path, tmp_path: Path, daemon: Any
) -> None:
    config = tree / "zoo.cfg"
    config.write_text("a")
    step = daemon(RUNS, restart_if_newer=(str(config), str(tree / "absent")))
    started = host.apply(step)
    first = (tmp_path / "daemon.pid").read_text()
    assert started is not None
    assert started.summary == "start"
    config.write_text("b")  # as a run that died before it could restart would leave it
    restarted = host.apply(step)
    assert restarted is not None
    assert (restarted.summary, (tmp_path / "daemon.pid").read_text() != first) == ("restart", True)
    assert str(config) in restarted.diff
    stopped = host.apply(daemon(RUNS, running=False))
    assert stopped is not None
    assert stopped.summary == "stop"


def test_a_daemon_runs_in_its_folder_and_not_in_the_language_of_the_script(
    host: LocalHost, tmp_path: Path, tree: Path, daemon: Any
) -> None:
    """A JVM takes its encoding from the locale, and zkServer.sh writes zookeeper.out where it stands (zkEnv.sh)."""
    host.apply(daemon(RUNS, folder=str(tree)))
    process = Path("/proc") / (tmp_path / "daemon.pid").read_text()
    assert (process / "cwd").readlink() == tree
    assert b"LC_ALL=en_US.UTF-8" in (process / "environ").read_bytes().split(b"\0")
    host.apply(daemon(RUNS, running=False))
    host.apply(daemon(RUNS, folder=str(tree / "absent")))
    assert (Path("/proc") / (tmp_path / "daemon.pid").read_text() / "cwd").readlink() == Path("/")


def test_a_daemon_that_takes_its_time_to_end_is_awaited(host: LocalHost, tmp_path: Path, daemon: Any) -> None:
    """zkServer.sh removes the pid file as soon as it has sent the signal: the process, not the file, tells the end."""
    step = daemon('trap "sleep 1; exit" TERM; ' + RUNS, running=True)
    host.apply(step)
    pid = (tmp_path / "daemon.pid").read_text()
    assert host.apply(daemon(RUNS, running=False)) is not None
    assert not runs(int(pid))


def test_a_daemon_that_dies_at_once_has_not_started(host: LocalHost, daemon: Any) -> None:
    step = daemon("sleep 0.5")
    change = host.plan(step)
    assert change is not None
    frame = host.make(step, change)
    assert frame.status == 1
    assert "ended as soon as it had started" in frame.err


def test_a_pid_file_that_names_another_program_is_told(host: LocalHost, tmp_path: Path, daemon: Any) -> None:
    step = daemon(RUNS, timeout=1)
    other = subprocess.Popen(["sleep", "60"])
    try:
        (tmp_path / "daemon.pid").write_text(str(other.pid))
        change = host.plan(step)
        assert change is not None
        assert change.summary == "start"
        frame = host.make(step, change)
        (tmp_path / "daemon.pid").unlink()
    finally:
        other.kill()
        other.wait()
    assert frame.status == 1
    assert f"names process {other.pid}, which is another program: sleep\n" in frame.err

"""The lab itself: what the chapters stand on is there, and whatever breaks is mended by `up`."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest
from asking import Ask

from runbook import lab as labs
from runbook.errors import LabError
from runbook.lab import Lab, Node, Output, engine, images, keys, rpms
from runbook.lab.archive import Entry, pack
from runbook.lab.folder import Folder
from runbook.lab.waiting import until
from runbook.remote.session import Login, Session, config
from runbook.remote.shell import Piece, quote
from runbook.site import Site

pytestmark = pytest.mark.lab

ZK = "/usr/hdp/2.4.0.0-169/zookeeper/bin/zkServer.sh"


@pytest.fixture
def folder(lab: Lab) -> Folder:
    return lab.folder


def containers(lab: Lab) -> dict[str, tuple[str, str]]:
    """Each node's container and when it was started."""
    found = {}
    for node in lab.nodes:
        container = lab.engine.client.containers.get(node.container)
        found[node.name] = (str(container.id), container.attrs["State"]["StartedAt"])
    return found


def connect(node: Node, folder: Folder, user: str = "root") -> paramiko.SSHClient:
    """An SSH connection that refuses every host key which known_hosts does not hold."""
    client = paramiko.SSHClient()
    client.load_host_keys(str(folder.known_hosts))
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    client.connect(
        node.address, username=user, key_filename=str(folder.user_key), look_for_keys=False, allow_agent=False
    )
    return client


def said(client: paramiko.SSHClient, command: str, *, stdin: str = "", terminal: bool = False) -> tuple[int, str]:
    """Exit status and standard output of a command over SSH, on a terminal or not."""
    given, out, _ = client.exec_command(command, get_pty=terminal)
    given.write(stdin)
    given.channel.shutdown_write()
    text = out.read().decode().strip()
    return out.channel.recv_exit_status(), text


# up


def test_up_leaves_alone_what_is_right(lab: Lab, folder: Folder) -> None:
    before = containers(lab)
    files = [lab.site_file, folder.user_key, folder.operator_password, folder.packages / "current" / "index.json"]
    written = [path.stat().st_mtime_ns for path in files]
    stages: list[str] = []

    with labs.up(progress=stages.append) as again:
        assert again.nodes == lab.nodes
        assert containers(again) == before

    assert stages == ["starting the nodes"]
    assert [path.stat().st_mtime_ns for path in files] == written


def test_a_stopped_and_a_killed_node_are_started_with_what_was_on_them(lab: Lab, ask: Ask) -> None:
    first, second, third = lab.nodes
    ask(first, "echo kept >/root/kept")
    untouched = containers(lab)[third.name]
    lab.stop(first)
    lab.kill(second)
    assert [one.state for one in labs.status(lab)] == ["exited", "exited", "running"]

    stages: list[str] = []
    with labs.up(progress=stages.append) as again:
        assert [(one.state, one.ssh) for one in labs.status(again)] == [("running", True)] * 3
        assert containers(again)[third.name] == untouched
    assert stages == ["starting the nodes"]

    assert ask(first, "cat /root/kept; rm /root/kept") == "kept"


def test_a_node_that_was_removed_or_only_half_made_is_made(lab: Lab, folder: Folder) -> None:
    first, second, _ = lab.nodes
    client = lab.engine.client
    client.containers.get(first.container).remove(force=True, v=True)
    container = client.containers.get(second.container)
    shape, image = container.labels, container.attrs["Config"]["Image"]
    container.remove(force=True, v=True)
    client.containers.create(
        image, name=second.container, hostname=second.name, labels={**shape, "runbook.lab.shape": "?"}
    )

    with labs.up():
        for node in (first, second):
            with connect(node, folder) as ssh:
                assert said(ssh, "hostname") == (0, node.name)


def test_a_node_whose_ssh_is_silent_is_restarted(lab: Lab, ask: Ask, folder: Folder) -> None:
    node = lab.nodes[1]
    ask(node, "systemctl stop ssh.service")

    with labs.up(), connect(node, folder) as ssh:
        assert said(ssh, "true") == (0, "")


def test_a_killed_engine_is_repaired_and_the_nodes_outlive_it(lab: Lab, folder: Folder) -> None:
    if not lab.engine.ours:
        pytest.skip("this machine's engine is not the lab's to kill")
    before = containers(lab)
    pid = engine.process(folder, "dockerd")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: engine.process(folder, "dockerd") is None, seconds=10)
    # what is left says that it runs: a socket, and pid files whose pids another process has by now
    assert folder.socket.exists()
    (folder.runtime / "docker.pid").write_text(str(os.getpid()))
    until(lambda: engine.process(folder, "containerd") is None, seconds=10)
    (folder.runtime / "exec" / "containerd" / "containerd.pid").write_text(str(os.getpid()))

    with labs.up() as again:
        assert containers(again) == before
        assert [one.ssh for one in labs.status(again)] == [True] * 3


def test_the_engine_stays_while_others_have_containers_on_it(
    lab: Lab, folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not lab.engine.ours:
        pytest.skip("this machine's engine stays in any case")
    before = containers(lab)
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("DOCKER_HOST", lab.engine.address)
        elsewhere.setenv("RUNBOOK_LAB_DIR", str(tmp_path / "other"))
        elsewhere.setenv("RUNBOOK_LAB_SITE", str(tmp_path / "other.yml"))
        elsewhere.setattr(images, "TAGS", {images.USERLAND: images.TAGS[images.USERLAND]})  # the others take longer
        with labs.up(nodes=1) as other:
            assert not {node.address for node in other.nodes} & {node.address for node in lab.nodes}
            guest = other.nodes[0].container
            built = f"runbook-lab-{other.folder.id}/*"
            assert [path.suffix for path in sorted(other.folder.images.iterdir())] == [".sha256", ".gz"]
        with monkeypatch.context() as here:
            here.delenv("DOCKER_HOST")
            here.setenv("RUNBOOK_LAB_DIR", str(folder.path))
            with pytest.raises(LabError, match=f"others have containers on the lab's engine:.* {guest}"):
                labs.down(everything=True)

        assert labs.down(everything=True) == 1

    assert not (tmp_path / "other.yml").exists()
    assert not (tmp_path / "other" / "images").exists()
    assert not lab.engine.client.images.list(filters={"reference": built})
    assert containers(lab) == before


def test_the_parameter_file_describes_the_nodes(lab: Lab) -> None:
    site = Site.load(lab.site_file)

    assert site.name == lab.folder.site
    assert [(host.name, str(host.address)) for host in site.hosts] == [(node.name, node.address) for node in lab.nodes]


# what a node is


def test_a_node_has_booted_with_systemd_and_nothing_has_failed(lab: Lab, ask: Ask) -> None:
    for node in lab.nodes:
        assert ask(node, "cat /proc/1/comm") == "systemd"
        assert ask(node, "systemctl is-system-running") == "running"
        assert ask(node, "systemctl is-active ssh rsyslog").split() == ["active", "active"]


def test_nodes_are_machines_of_their_own_that_know_each_other_by_name(lab: Lab, ask: Ask) -> None:
    assert len({ask(node, "cat /etc/machine-id") for node in lab.nodes}) == 3
    for node in lab.nodes:
        for other in lab.nodes:
            assert ask(node, f"getent hosts {other.name}").split()[0] == other.address
            assert ask(node, f"timeout 5 bash -c 'head -n 1 </dev/tcp/{other.name}/22'").startswith("SSH-")


def test_a_node_reaches_nothing_beyond_the_lab(lab: Lab, ask: Ask) -> None:
    for node in lab.nodes:
        assert ask(node, "ip route show default") == ""
        # an address of documentation (RFC 5737), which nobody has: the node does not even try
        refused = lab.exec(node, "nc -w 5 203.0.113.1 80 </dev/null")
        assert refused.status != 0
        assert "Network is unreachable" in lab.exec(node, ["ping", "-c1", "-W1", "203.0.113.1"]).stderr


def test_ssh_refuses_a_host_key_that_is_not_the_node_s(lab: Lab, folder: Folder, tmp_path: Path) -> None:
    first, second, _ = lab.nodes
    swapped = Folder(tmp_path)
    shutil.copytree(folder.keys, swapped.keys)
    keys.write_known_hosts(swapped, {second.name: first.address})

    with connect(first, folder) as ssh:
        assert said(ssh, "id -un") == (0, "root")
    with pytest.raises(paramiko.BadHostKeyException):
        connect(first, swapped)


def test_shell_connects_with_the_keys_of_the_lab(lab: Lab) -> None:
    if shutil.which("ssh") is None:
        pytest.skip("no ssh on this machine")
    shell = [sys.executable, "-c", "from runbook.cli import main; main()", "lab", "shell"]

    done = subprocess.run([*shell, "node2", "hostname"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "node2\n"), done.stderr
    unknown = subprocess.run([*shell, "node9"], capture_output=True, text=True, check=False)
    assert unknown.returncode == 1
    assert "the lab has no node node9" in unknown.stderr


def test_two_users_may_sudo_one_with_a_password_and_one_without(lab: Lab, folder: Folder) -> None:
    node = lab.nodes[0]
    with connect(node, folder, "deploy") as ssh:
        assert said(ssh, "sudo -n id -u 2>&1") == (1, "sudo: sorry, you must have a tty to run sudo")
        assert said(ssh, "sudo -n id -u", terminal=True) == (0, "0")
    with connect(node, folder, "operator") as ssh:
        assert said(ssh, "sudo -n id -u", terminal=True)[0] == 1
        # sudo drops what a terminal holds for it already: the password comes to it through a pipe
        sudo = "IFS= read -r secret; printf '%s\\n' \"$secret\" | sudo -S -p '' id -u"
        status, output = said(ssh, sudo, stdin=f"{folder.operator_password.read_text()}\n", terminal=True)
        assert (status, output.splitlines()[-1]) == (0, "0")
        assert said(ssh, sudo, stdin="wrong\n", terminal=True)[0] == 1


# the profile


@pytest.mark.parametrize("user", ["root", "deploy"])
def test_over_ssh_the_programs_are_those_of_centos_7(lab: Lab, folder: Folder, user: str) -> None:
    with connect(lab.nodes[0], folder, user) as ssh:
        assert said(ssh, "stat --version") == (0, "stat (GNU coreutils) 8.22")
        assert said(ssh, "systemctl show --value -p MainPID ssh 2>&1") == (
            1,
            "systemctl: unrecognized option '--value'",
        )
        assert said(ssh, "sync /etc/hosts 2>&1") == (0, "sync: ignoring all arguments")
        assert said(ssh, "systemctl is-active ssh none-such") == (3, "active\nunknown")
        if user == "root":  # others may not read the journal
            assert said(ssh, "journalctl -n 1 -u none-such")[1].startswith("-- Logs begin at ")
        # CentOS's sh is bash in POSIX mode, which dash is not
        assert said(ssh, "/bin/sh -c 'echo ${BASH_VERSION:+bash} $POSIXLY_CORRECT; set -o | grep posix'")[1] == (
            "bash y\nposix          \ton"
        )
        # what sudo runs finds them as well
        sudo = "sudo -n " if user == "deploy" else ""
        assert said(ssh, f"{sudo}stat --cached=never /", terminal=True)[0] == 1


def test_what_does_not_come_over_ssh_is_undisturbed(lab: Lab, ask: Ask) -> None:
    node = lab.nodes[0]
    assert ask(node, "command -v systemctl stat") == "/usr/bin/systemctl\n/usr/bin/stat"
    assert ask(node, "systemctl show --value -p LoadState ssh") == "loaded"
    assert "/opt/centos7" not in ask(node, "systemctl show-environment; tr '\\0' '\\n' </proc/1/environ")


def test_sshd_is_that_of_centos_7(lab: Lab, folder: Folder) -> None:
    with socket.create_connection((lab.nodes[0].address, 22)) as connection:
        transport = paramiko.Transport(connection)
        transport.connect()
        assert transport.remote_version == "SSH-2.0-OpenSSH_6.6.1"
        # RFC 8308's server-sig-algs came with 7.2 (kex.c of V_7_2_P1): before, a client is not told of rsa-sha2
        assert transport.server_extensions == {}
        transport.close()


def test_of_an_rsa_key_sshd_takes_signatures_with_sha1_only(lab: Lab, ask: Ask, folder: Folder, tmp_path: Path) -> None:
    """As OpenSSH 6.6.1: paramiko, which signs with SHA-2, is refused, and the runbook falls back."""
    node, key, file = lab.nodes[0], paramiko.RSAKey.generate(2048), tmp_path / "id_rsa"
    key.write_private_key_file(str(file))
    ask(node, f"echo 'ssh-rsa {key.get_base64()} of a test' >>/root/.ssh/authorized_keys")
    client = paramiko.SSHClient()
    client.load_host_keys(str(folder.known_hosts))
    try:
        with client, pytest.raises(paramiko.AuthenticationException):
            client.connect(node.address, username="root", pkey=key, look_for_keys=False, allow_agent=False)
        session = Session(node.name, Login(node.address, "root", 22, file, folder.known_hosts), config())
        try:
            frames = session.execute([Piece("0", "id -u")], time.monotonic() + 20).frames
        finally:
            session.close()
        assert frames["0"].out == "0\n"
    finally:
        ask(node, "sed -i '/of a test$/d' /root/.ssh/authorized_keys")


def test_a_change_of_the_profile_or_of_the_shell_is_found_and_mended(lab: Lab, ask: Ask, tmp_path: Path) -> None:
    before, shell = containers(lab), tmp_path / "bash"
    shutil.copy("/bin/bash", shell)
    try:
        with labs.up(profile="debian") as other:
            assert [str(one.profile) for one in labs.status(other)] == ["debian"] * 3
            assert ask(other.nodes[0], "readlink /bin/sh; ls /opt/centos7 2>&1 || true").splitlines()[0] == "dash"
            plain = containers(other)
            assert not plain.items() & before.items()
        with labs.up(nodes=3, shell=shell) as other:
            assert [str(one.profile) for one in labs.status(other)] == ["centos7 with bash"] * 3
            digest = hashlib.sha256(shell.read_bytes()).hexdigest()
            assert ask(other.nodes[0], "sha256sum </bin/sh").split()[0] == digest
            other.reset(other.nodes[2])
            assert ask(other.nodes[2], "[ ! -L /bin/sh ] && echo theirs") == "theirs"
            given = containers(other)
        with labs.up(shell=shell) as again:
            assert containers(again) == given
    finally:
        labs.up().close()
    assert [str(one.profile) for one in labs.status(lab)] == ["centos7"] * 3


def test_the_system_log_has_the_places_of_centos(lab: Lab, ask: Ask) -> None:
    node = lab.nodes[0]
    ask(node, "logger -t lab-test spoken")

    until(lambda: "lab-test: spoken" in ask(node, "cat /var/log/messages"), seconds=10)


# packages


def test_yum_and_rpm_install_upgrade_and_remove_a_package_with_its_service(fresh_node: Node, ask: Ask) -> None:
    node = fresh_node
    assert "runbook-rehearsal.noarch" in ask(node, "yum list --showduplicates runbook-rehearsal")

    ask(node, "yum install -y runbook-rehearsal-1.0")
    assert ask(node, "rpm -q runbook-rehearsal") == "runbook-rehearsal-1.0-1.noarch"
    ask(node, "service runbook-rehearsal start && systemctl enable runbook-rehearsal")
    assert ask(node, "systemctl is-active runbook-rehearsal") == "active"

    ask(node, "rpm -Uvh /opt/lab-repo/current/runbook-rehearsal-1.1-1.noarch.rpm")
    assert ask(node, "cat /usr/share/runbook-rehearsal/version") == "runbook-rehearsal 1.1"
    assert ask(node, "systemctl is-active runbook-rehearsal") == "active"

    ask(node, "rpm -e runbook-rehearsal")
    assert ask(node, "systemctl is-active runbook-rehearsal || true") == "inactive"
    assert "not installed" in ask(node, "rpm -q runbook-rehearsal || true")


def test_every_user_sees_the_same_packages(lab: Lab, ask: Ask) -> None:
    node = lab.nodes[0]

    assert "node-base-1.0-1.noarch" in ask(node, "rpm -qa").split()
    assert ask(node, "runuser -u deploy -- rpm -qa") == ask(node, "rpm -qa")


def test_nodes_cannot_write_the_repository(lab: Lab) -> None:
    assert "Read-only file system" in lab.exec(lab.nodes[0], "touch /opt/lab-repo/current/x").stderr


def test_packages_of_a_folder_take_the_place_of_the_lab_s_own(
    lab: Lab, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RUNBOOK_LAB_PACKAGES", raising=False)
    node = lab.nodes[0]
    shutil.copy(lab.folder.packages / "current" / "runbook-rehearsal-1.0-1.noarch.rpm", tmp_path)
    # Metadata count as fresh for a second (lab.repo), which is longer than an `up` takes where nothing else is to do.
    listed = "yum -q --refresh list --available --showduplicates runbook-rehearsal | grep -o '1\\.[0-9]-1'"
    assert ask(node, listed).split() == ["1.0-1", "1.1-1"]

    with labs.up(packages=tmp_path):
        assert ask(node, listed).split() == ["1.0-1"]
    with labs.up():
        assert ask(node, listed).split() == ["1.0-1", "1.1-1"]


def test_a_package_that_cannot_be_built_shows_what_rpmbuild_said(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "broken"
    recipe.mkdir()
    spec = (rpms.RECIPES / "runbook-rehearsal" / "runbook-rehearsal-1.0.spec").read_text()
    (recipe / "broken.spec").write_text(spec.replace("%install\n", "%install\necho 'nothing to install' >&2; exit 3\n"))
    shutil.copy(rpms.RECIPES / "runbook-rehearsal" / "runbook-rehearsal.service", recipe)
    monkeypatch.setattr(rpms, "RECIPES", tmp_path)

    with pytest.raises(LabError, match=r"could not build the package broken:[^$]*nothing to install"):
        labs.up()

    assert lab.exec(lab.nodes[0], "yum -q list runbook-rehearsal").status == 0, "the repository in use must stay"


# ZooKeeper, as the document found it


def test_zookeeper_is_there_and_neither_started_nor_configured_as_a_member(fresh_node: Node, ask: Ask) -> None:
    assert ask(fresh_node, "ls -A /var/lib/zookeeper /usr/hdp/2.4.0.0-169/zookeeper/logs | grep -v ':$'; true") == ""
    assert ask(fresh_node, "grep -E '^[^#]' /etc/zookeeper/conf/zoo.cfg").split() == [
        "tickTime=2000",
        "initLimit=10",
        "syncLimit=5",
        "dataDir=/var/lib/zookeeper",
        "clientPort=2181",
    ]
    assert ask(fresh_node, "ss -Hltn 'sport = 2181 or sport = 8080'") == ""


def test_zookeeper_is_started_asked_and_stopped_by_its_script(fresh_node: Node, lab: Lab, ask: Ask) -> None:
    node = fresh_node
    idle = lab.exec(node, f"{ZK} status")
    assert (idle.status, "Error contacting service. It is probably not running." in idle.stdout) == (1, True)

    assert "STARTED" in ask(node, f"{ZK} start")
    until(lambda: ask(node, "echo ruok | nc -w 2 localhost 2181 || true") == "imok", seconds=30)
    assert ask(node, f"{ZK} status") == "Mode: standalone"
    assert "zk_server_state\tstandalone" in ask(node, "echo mntr | nc -w 2 localhost 2181")
    assert "Server environment:zookeeper.version=3.8" in ask(
        node, "cat /usr/hdp/2.4.0.0-169/zookeeper/logs/zookeeper-root-server-node3.log"
    )
    assert ask(node, "ss -Hltn 'sport = 8080'") == "", "the admin server would take Marathon's port"
    pid = ask(node, "cat /var/lib/zookeeper/zookeeper_server.pid")
    assert f"already running as process {pid}" in ask(node, f"{ZK} start")

    assert "STOPPED" in ask(node, f"{ZK} stop")
    assert lab.exec(node, f"kill -0 {pid}").status != 0
    assert "no zookeeper to stop" in ask(node, f"{ZK} stop")


def test_zookeeper_s_script_believes_a_pid_file_whatever_lives_under_its_pid(fresh_node: Node, ask: Ask) -> None:
    # the trap of 3.4.6 that chapter 1.3 has to diagnose: `start` exits 0 and nothing runs
    ask(fresh_node, "printf 1 >/var/lib/zookeeper/zookeeper_server.pid")

    assert "already running as process 1." in ask(fresh_node, f"{ZK} start")

    assert ask(fresh_node, "ss -Hltn 'sport = 2181'") == ""


# Docker, and the images


@pytest.fixture(scope="module")
def docker_node(lab: Lab, ask: Ask) -> Iterator[Node]:
    """The second node, with Docker and all images of the lab."""
    node = lab.nodes[1]
    lab.reset(node)
    ask(node, "yum install -y docker-engine && systemctl start docker")
    container = lab.engine.client.containers.get(node.container)
    for image in Site.load(lab.site_file).images.values():
        assert hashlib.sha256(image.file.read_bytes()).hexdigest() == image.sha256
        container.put_archive("/root", pack({"image.tar.gz": Entry(image.file.read_bytes(), 0o600)}))
        assert ask(node, "docker load -i /root/image.tar.gz") == f"Loaded image: {image.tag}"
    yield node
    lab.reset(node)


@pytest.fixture
def containers_go(docker_node: Node, ask: Ask) -> Iterator[None]:
    yield
    ask(docker_node, "docker rm -f -v $(docker ps -aq); rm -rf /opt/*-test")


def fetch(node: Node, port: int, path: str = "/") -> tuple[int, str]:
    """Status and body of what a node's port answers to this machine; 0 and nothing where nobody listens yet."""
    try:
        with urllib.request.urlopen(f"http://{node.address}:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except (ConnectionError, urllib.error.URLError):
        return 0, ""


def test_the_document_s_loop_answers_every_request_and_ends_each_answer(lab: Lab, ask: Ask) -> None:
    node = lab.nodes[0]
    loop = 'while true; do ( echo "HTTP/1.0 200 Ok"; echo; echo "Hello World" ) | nc -l $PORT; done'
    pid = ask(node, f"PORT=8401 setsid sh -c '{loop}' >/dev/null 2>&1 & echo $!")
    try:
        for _ in range(3):
            assert until(lambda: fetch(node, 8401)[1], seconds=5) == "Hello World\n"
    finally:
        ask(node, f"kill -- -{pid}")


def test_docker_runs_under_systemd_with_a_version_that_mesos_can_read(docker_node: Node, ask: Ask) -> None:
    for question in ("docker --version", "docker -v", "docker -H unix:///var/run/docker.sock --version"):
        assert re.fullmatch(r"Docker version \d+\.\d+\.\d+, build \w+", ask(docker_node, question))
    assert ask(docker_node, "systemctl show -p MainPID --value docker") == ask(docker_node, "pidof dockerd")
    assert ask(docker_node, "docker info -f '{{.Driver}}' 2>/dev/null") == "overlay2"
    assert ask(docker_node, "findmnt -n -o TARGET -T /var/lib/docker") == "/var/lib/docker", "it must be a volume"


@pytest.mark.usefixtures("containers_go")
def test_a_container_with_a_port_and_a_limit_is_back_after_docker_restarts(docker_node: Node, ask: Ask) -> None:
    serve = r'while true; do printf "HTTP/1.0 200 OK\r\n\r\nhello\n" | nc -l -p 80 >/dev/null; done'
    run = f"docker run -d --name web --restart always -m 64m -p 8401:80 lab/userland:1 /bin/sh -c '{serve}'"
    ask(docker_node, run)
    until(lambda: fetch(docker_node, 8401) == (200, "hello\n"), seconds=10)
    assert ask(docker_node, "docker exec web cat /sys/fs/cgroup/memory/memory.limit_in_bytes") == str(64 * 1024**2)
    started = ask(docker_node, "docker inspect -f '{{.State.StartedAt}}' web")

    ask(docker_node, "timeout 30 systemctl restart docker")

    until(lambda: fetch(docker_node, 8401) == (200, "hello\n"), seconds=10)
    assert ask(docker_node, "docker inspect -f '{{.State.StartedAt}}' web") > started


def test_the_images_stand_on_one_userland_that_a_host_keeps_once(docker_node: Node, ask: Ask) -> None:
    tags = ("lab/userland:1", "lab/mariadb:10.11", "lab/registry:2.8.2", "lab/registry-web:0.1")
    layers = [json.loads(ask(docker_node, f"docker inspect -f '{{{{json .RootFS.Layers}}}}' {tag}")) for tag in tags]

    assert {found[0] for found in layers} == set(layers[0])


@pytest.mark.usefixtures("containers_go")
def test_mariadb_honours_the_variables_of_mysql_s_image_and_keeps_its_data(
    docker_node: Node, lab: Lab, ask: Ask
) -> None:
    root, user = r"""ro\ot'pw"`x""", "te$t %;"
    settings = {"ROOT_PASSWORD": root, "DATABASE": "Bucket_List", "USER": "test", "PASSWORD": user}
    variables = "".join(f"MYSQL_{name}={value}\n" for name, value in settings.items())
    ask(docker_node, f"umask 077; cat >/root/mysql.env <<'END'\n{variables}END")

    def sql(name: str, password: str, statement: str) -> Output:
        call = f"docker exec -e MYSQL_PWD={quote(password)} db mysql -N -h127.0.0.1 -u{name} -e {quote(statement)}"
        return lab.exec(docker_node, call)

    def run(extra: str) -> None:
        ask(docker_node, f"docker run -d --name db -m 1024m -v /opt/db-test:/var/lib/mysql {extra} lab/mariadb:10.11")
        until(lambda: sql("test", user, "SELECT 1").status == 0, seconds=60)

    run("--env-file /root/mysql.env")
    said = ask(docker_node, "docker logs db 2>&1; ps -eo args")
    assert root not in said
    assert user not in said
    assert sql("test", user, "SHOW DATABASES").stdout.split() == ["Bucket_List", "information_schema"]
    assert sql("root", root, "CREATE TABLE Bucket_List.wish (text TEXT)").status == 0
    assert sql("test", user, "INSERT INTO Bucket_List.wish VALUES ('sleep')").status == 0
    for wrong in ("", "test"):
        assert "Access denied" in sql("root", wrong, "SELECT 1").stderr
    assert ask(docker_node, "docker exec db ps -o user,args").splitlines()[1].split() == ["mysql", "mysqld"]

    # Variables count where the data folder is empty, and only there.
    ask(docker_node, "docker stop db && docker rm db")
    run("")
    assert sql("test", user, "SELECT text FROM Bucket_List.wish").stdout.split() == ["sleep"]


@pytest.mark.usefixtures("containers_go")
def test_mariadb_starts_a_setup_again_that_was_interrupted_and_none_without_a_password(
    docker_node: Node, lab: Lab, ask: Ask
) -> None:
    refused = lab.exec(docker_node, "docker run --rm lab/mariadb:10.11")
    assert refused.status == 1
    assert "MYSQL_ROOT_PASSWORD is not set" in refused.stderr

    ask(
        docker_node, "mkdir -p /opt/half-test/mysql && touch /opt/half-test/.being-set-up /opt/half-test/mysql/user.frm"
    )
    run = "docker run -d --name half -v /opt/half-test:/var/lib/mysql"
    ask(docker_node, f"{run} -e MYSQL_ROOT_PASSWORD=secret-7 lab/mariadb:10.11")
    alive = "docker exec -e MYSQL_PWD=secret-7 half mysql -h127.0.0.1 -uroot -e 'SELECT 1'"
    until(lambda: lab.exec(docker_node, alive).status == 0, seconds=60)
    assert "an earlier setup was interrupted" in ask(docker_node, "docker logs half 2>&1")
    assert lab.exec(docker_node, "test -e /opt/half-test/.being-set-up").status == 1


@pytest.mark.usefixtures("containers_go")
def test_the_registry_and_its_page_have_the_paths_ports_and_variables_of_theirs(docker_node: Node, ask: Ask) -> None:
    ask(
        docker_node,
        "docker run -d --name registry -p 8600:5000 -v /opt/registry-test:/var/lib/registry "
        "-e REGISTRY_STORAGE_DELETE_ENABLED=true lab/registry:2.8.2",
    )
    until(lambda: fetch(docker_node, 8600, "/v2/")[0] == 200, seconds=10)
    ask(docker_node, "docker tag lab/userland:1 127.0.0.1:8600/userland:1 && docker push 127.0.0.1:8600/userland:1")
    assert fetch(docker_node, 8600, "/v2/_catalog")[1] == '{"repositories":["userland"]}\n'
    assert ask(docker_node, "ls /opt/registry-test/docker/registry/v2/repositories") == "userland"

    manifests = "http://127.0.0.1:8600/v2/userland/manifests"
    accept = "Accept: application/vnd.docker.distribution.manifest.v2+json"
    head = ask(docker_node, f"curl -sI -H '{accept}' {manifests}/1 | tr -d '\\r' | tr A-Z a-z")
    digest = re.search(r"^docker-content-digest: (\S+)$", head, re.MULTILINE)
    assert digest
    assert ask(docker_node, f"curl -s -o /dev/null -w '%{{http_code}}' -X DELETE {manifests}/{digest[1]}") == "202"
    collected = ask(docker_node, "docker exec registry registry garbage-collect /etc/docker/registry/config.yml")
    assert "0 blobs marked, 3 blobs and 0 manifests eligible for deletion" in collected

    address = f"-e REGISTRY_HOST={docker_node.address} -e REGISTRY_PORT=8600"
    ask(docker_node, f"docker run -d --name page -p 8400:8080 {address} lab/registry-web:0.1")
    until(lambda: f"{docker_node.address}:8600" in fetch(docker_node, 8400)[1], seconds=10)

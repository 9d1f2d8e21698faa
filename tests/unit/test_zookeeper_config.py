"""zoo.cfg as java.util.Properties and QuorumPeerConfig read it, and what the step makes of it."""

from __future__ import annotations

import base64
import os
import subprocess
from pathlib import Path

import pytest
from zookeeper_payloads import said, site

from runbook.errors import ParameterError, StepFailed
from runbook.remote.steps import before_after, sha256
from runbook.services.zookeeper import InForce, RunningMember, Settings, running_question, service, settings
from runbook.services.zookeeper_config import (
    ServerLine,
    VotingRule,
    ZooCfg,
    foreign,
    foreign_flags,
    in_force,
    misfits,
)
from runbook.services.zookeeper_ensemble import server_lines
from runbook.site import Site

HADOOP = """\
#
# as Ambari writes it: ambari-server, HDP 2.x, ZOOKEEPER/package/templates/zoo.cfg.j2
clientPort=2181
initLimit=10
autopurge.purgeInterval=24
syncLimit=5
tickTime=2000
dataDir=/var/lib/zookeeper
autopurge.snapRetainCount=30
server.1=198.51.100.11:2888:3888
server.2=198.51.100.12:2888:3888
server.3=198.51.100.13:2888:3888
"""
STATIC = """\
tickTime=2000
initLimit=10
syncLimit=5
dataDir=/var/lib/zookeeper
reconfigEnabled=true
dynamicConfigFile=/etc/zookeeper/conf/zoo.cfg.dynamic.100000000
"""
DYNAMIC = """\
server.1=198.51.100.11:2888:3888:participant;0.0.0.0:2181
server.2=198.51.100.12:2888:3888:participant;0.0.0.0:2181
server.3=198.51.100.13:2888:3888:participant;0.0.0.0:2181"""
"""As zookeeperReconfig.md of 3.5 and later shows the two files."""


def probed(content: str | bytes, **more: str) -> str:
    """What the probe of the settings prints of a zoo.cfg with this content."""
    data = content.encode("latin-1") if isinstance(content, str) else content
    told = {"kind": "file", "mode": "644", "owner": "root", "group": "root", "size": str(len(data))}
    told |= {"sha256": sha256(data), "content": base64.b64encode(data).decode(), **more}
    return "".join(f"{key}={value}\n" for key, value in told.items())


def dynamic(content: str) -> str:
    return base64.b64encode(content.encode()).decode()


def edited(content: str | bytes, described: Site | None = None, **more: str) -> str | None:
    """What becomes of a zoo.cfg; None where nothing is to change."""
    step, _ = settings(described or site())
    change = step.plan(probed(content, **more))
    if change is None:
        return None
    assert change.content is not None
    after = change.content.decode("latin-1")
    assert step.plan(probed(after, **more)) is None, "a second run would change something"
    return after


# the format


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("dataDir=/a", "/a"),
        ("dataDir=/a\r\n", "/a"),
        ("dataDir=/a\rtickTime=1\r", "/a"),
        ("dataDir=/a   \t\n", "/a"),
        ("  \t\fdataDir = /a\n", "/a"),
        ("dataDir : /a\n", "/a"),
        ("dataDir /a\n", "/a"),
        ("dataDir\t/a\n", "/a"),
        ("dataDir==/a\n", "=/a"),
        ("dataDir=/a\\:b\\ c\n", "/a:b c"),
        ("dataDir=/\\u0061\n", "/a"),
        ("data\\\n   Dir=/a\\\r\n  /b\n", "/a/b"),
        ("dataDir=/a\\\\\ntickTime=1\n", "/a\\"),
        ("#dataDir=/b\n ! dataDir=/c\ndataDir=/a\n", "/a"),
        ("# a comment is not continued \\\ndataDir=/a\n", "/a"),
        ("dataDir=/b\ndataDir=/a\n", "/a"),
        ("\ufeffdataDir=/a\n".encode().decode("latin-1"), None),
        ("data-Dir=/a\n", None),
    ],
)
def test_a_setting_is_read_as_java_reads_it(text: str, value: str | None) -> None:
    """java.util.Properties.load, and the trim() of QuorumPeerConfig.parseProperties."""
    assert ZooCfg(text).values.get("dataDir") == value


@pytest.mark.parametrize(
    ("value", "server"),
    [
        ("h:2888:3888", ServerLine((("h", 2888, 3888),))),
        ("H:2888", ServerLine((("h", 2888, None),))),
        ("h:2888:3888:participant", ServerLine((("h", 2888, 3888),))),
        ("h:2888:3888:OBSERVER", ServerLine((("h", 2888, 3888),), observer=True)),
        ("h:2888:3888;2181", ServerLine((("h", 2888, 3888),), client_port=2181)),
        ("h:2888:3888:observer;0.0.0.0:2182", ServerLine((("h", 2888, 3888),), True, 2182)),
        ("[2001:db8::1]:2888:3888", ServerLine((("[2001:db8::1]", 2888, 3888),))),
        ("a:2888:3888|b:2889:3889;2181", ServerLine((("a", 2888, 3888), ("b", 2889, 3889)), client_port=2181)),
        ("nonsense", None),
        ("h:2888:3888:voter", None),
        ("h:2888:3888;x", None),
    ],
)
def test_a_server_line_is_read_as_zookeeper_reads_it(value: str, server: ServerLine | None) -> None:
    """QuorumPeer.QuorumServer.initializeWithAddressString."""
    assert ServerLine.parse(value) == server


# what the step makes of it


@pytest.mark.parametrize(
    "content",
    [
        HADOOP,
        HADOOP.rstrip("\n"),
        HADOOP.replace("syncLimit=5", "syncLimit \t= 5  "),
        HADOOP.replace("initLimit=10", "initLimit: 10"),
        HADOOP.replace("server.1=", " server.1 = "),
        HADOOP.replace(":3888\n", ":3888:participant\n"),
        HADOOP.replace(":3888\n", ":3888;2181\n"),
        HADOOP.replace("/var/lib/zookeeper", "/var/lib/zookeeper/"),
        HADOOP.replace("/var/lib/zookeeper", "/var//lib/./mesos/../zookeeper"),
    ],
)
def test_what_means_the_same_is_left_alone(content: str) -> None:
    assert edited(content) is None


def test_of_a_file_with_crlf_only_what_zkserver_sh_would_misread_is_written_anew() -> None:
    """zkServer.sh of 3.4.6 takes what follows the last `=` of a line for dataDir, and makes that folder."""
    after = edited(HADOOP.replace("\n", "\r\n"))
    assert after is not None
    assert "dataDir=/var/lib/zookeeper\n" in after
    assert "clientPort=2181\n" in after
    assert "autopurge.purgeInterval=24\r\n" in after
    assert ZooCfg(after).values == ZooCfg(HADOOP).values


@pytest.mark.parametrize(
    "line", ["dataDir = /var/lib/zookeeper", "dataDir: /var/lib/zookeeper", "dataDir=/var/lib/zookeeper "]
)
def test_the_data_folder_is_written_as_zkserver_sh_reads_it(line: str) -> None:
    assert edited(HADOOP.replace("dataDir=/var/lib/zookeeper", line)) == HADOOP


def test_a_byte_order_mark_is_taken_out() -> None:
    content = ("\ufeff" + HADOOP.replace("#\n", "", 1)).encode()
    assert edited(content) == HADOOP.replace("#\n", "", 1)


def test_bytes_that_are_not_utf_8_stay() -> None:
    after = edited(b"# caf\xe9\n" + HADOOP.replace("tickTime=2000", "tickTime=3000").encode())
    assert after is not None
    assert after.startswith("# caf\xe9\n")
    assert "tickTime=2000\n" in after


def test_of_a_setting_that_is_given_twice_one_line_remains() -> None:
    assert edited("tickTime=3000\n" + HADOOP.replace("tickTime=2000\n", "tickTime=2000\n")) is not None
    assert edited(HADOOP + "tickTime=2000\n") == HADOOP


def test_a_symbolic_link_to_the_data_folder_is_the_data_folder() -> None:
    content = HADOOP.replace("/var/lib/zookeeper", "/hadoop/zookeeper")
    places = {"data": "/hadoop/zookeeper", "data_at": "/srv/zk", "wanted_at": "/srv/zk"}
    assert edited(content, **places) is None
    with pytest.raises(StepFailed, match="dataDir=/hadoop/zookeeper, the parameters say /var/lib/zookeeper"):
        edited(content, **(places | {"wanted_at": "/srv/other"}))


def test_a_relative_data_folder_is_made_absolute_where_it_is_the_same() -> None:
    content = HADOOP.replace("/var/lib/zookeeper", "lib/zookeeper")
    places = {"data": "lib/zookeeper", "data_at": "/var/lib/zookeeper", "wanted_at": "/var/lib/zookeeper"}
    assert edited(content, **places) == HADOOP
    with pytest.raises(StepFailed, match=r"set zookeeper\.data_dir to /root/lib/zookeeper"):
        edited(content, **(places | {"data_at": "/root/lib/zookeeper"}))


def test_the_hint_of_a_foreign_data_folder_can_be_followed() -> None:
    with pytest.raises(StepFailed) as failed:
        edited(HADOOP.replace("/var/lib/zookeeper", "/hadoop/./zookeeper/"))
    assert failed.value.remedy is not None
    assert failed.value.remedy.startswith("set zookeeper.data_dir to /hadoop/zookeeper; or")
    assert site(3, "").zookeeper.data_dir  # a plain path is what the parameters take
    Site.parse(
        "name: x\nhosts: [{name: a, address: a, roles: [zookeeper]}]\n"
        "zookeeper: {allow_even: true, data_dir: /hadoop/zookeeper}\n",
        Path("x.yml"),
    )


# observers and groups


def test_an_observer_that_is_no_member_stays_and_a_voter_does_not() -> None:
    observed = HADOOP + "server.4=198.51.100.14:2888:3888:observer\n"
    assert edited(observed) is None
    assert edited(HADOOP + "server.4=198.51.100.14:2888:3888\n") == HADOOP
    assert edited(HADOOP + "server.4=198.51.100.14:2888:3888:participant;2181\n") == HADOOP


def with_observer(voters: int = 3) -> Site:
    """Voting members and one observer, the last."""
    hosts = [f"{{name: node{n}, address: 198.51.100.{10 + n}, roles: [zookeeper]}}" for n in range(1, voters + 1)]
    hosts.append(f"{{name: node{voters + 1}, address: 198.51.100.99, roles: [zookeeper], observer: true}}")
    return Site.parse(f"name: test\nhosts: [{', '.join(hosts)}]\n", Path("test.yml"))


def test_an_observer_of_the_parameters_is_one_in_zoo_cfg_and_does_not_count() -> None:
    described = with_observer()
    line = "server.4=198.51.100.99:2888:3888:observer\n"
    voter, _ = settings(described, described.hosts[0])
    observer, _ = settings(described, described.hosts[3])
    assert voter.plan(probed(HADOOP + line)) is None
    change = observer.plan(probed(HADOOP + line))
    assert change is not None
    assert change.content == f"{HADOOP}{line}peerType=observer\n".encode()
    assert observer.plan(probed(change.content)) is None
    # one that voted before is told to observe, and one that observed to vote
    became = voter.plan(probed(f"{HADOOP}{line}peerType = observer\n"))
    assert became is not None
    assert became.content == f"{HADOOP}{line}".encode()


def test_observers_need_members_to_observe_and_the_role() -> None:
    with pytest.raises(ParameterError, match="1 member beside observers"):
        with_observer(1)
    with pytest.raises(ParameterError, match="has no effect, as a is no zookeeper"):
        Site.parse("name: x\nhosts: [{name: a, address: a, roles: [docker], observer: true}]\n", Path("x.yml"))
    assert len(with_observer(3).having("zookeeper")) == 4  # four of them, and no warning of an even number


def test_groups_and_weights_stay_as_long_as_they_hold_the_members() -> None:
    groups = "group.1=1:2\ngroup.2=3\nweight.1=2\n"
    assert edited(HADOOP + groups) is None
    with pytest.raises(
        StepFailed, match=r"group\.N hold the members 1, 2, 3, 4, and those of the parameters are 1, 2, 3"
    ):
        edited(HADOOP + "server.4=h:2888:3888\ngroup.1=1:2\ngroup.2=3:4\n")


@pytest.mark.parametrize(
    ("cfg", "members", "holds"),
    [
        ("", {1, 2}, True),
        ("", {1}, False),
        ("", {1, 4}, False),  # 4 does not vote
        ("group.1=1:2\ngroup.2=3\n", {1, 2}, False),  # one group of two
        ("group.1=1:2\ngroup.2=3\n", {1, 2, 3}, True),
        ("group.1=1:2\ngroup.2=3\n", {1, 3}, False),  # half of the first
        ("group.1=1:2\ngroup.2=3\nweight.2=0\n", {1, 3}, True),
        ("group.1=1:2\ngroup.2=3\nweight.3=0\n", {1, 2}, True),  # a group without weight does not count
    ],
)
def test_what_makes_a_quorum(cfg: str, members: set[int], holds: bool) -> None:
    """QuorumMaj and QuorumHierarchical.containsQuorum."""
    assert VotingRule.of((1, 2, 3), ZooCfg(cfg)).holds(members) is holds


# the dynamic file of 3.5 and later


def test_members_in_a_dynamic_file_are_compared_and_never_written_beside_it() -> None:
    assert edited(STATIC, dynamic=dynamic(DYNAMIC)) is None
    # static settings are the runbook's all the same; the clients' port is in the dynamic file
    after = edited(STATIC.replace("syncLimit=5", "syncLimit=7"), dynamic=dynamic(DYNAMIC))
    assert after == STATIC


def test_an_observer_in_the_dynamic_file_stays() -> None:
    observer = "\nserver.4=198.51.100.14:2888:3888:observer;0.0.0.0:2181"
    assert edited(STATIC, dynamic=dynamic(DYNAMIC + observer)) is None


@pytest.mark.parametrize(
    ("static", "file", "told"),
    [
        (
            STATIC,
            DYNAMIC.replace("100.12", "100.99"),
            r"server\.2 is 198\.51\.100\.99.*, expected 198\.51\.100\.12:2888",
        ),
        (STATIC, "\n".join(DYNAMIC.splitlines()[:2]), r"server\.3 is missing, expected"),
        (STATIC, DYNAMIC + "\nserver.4=h:2888:3888;2181", r"server\.4 is h:2888:3888;2181, expected none"),
        (STATIC, DYNAMIC.replace(":2181", ":2182"), r"server\.1 is .*2182, expected"),
        (STATIC + "server.1=198.51.100.11:2888:3888\n", DYNAMIC, r"has server\.1 beside dynamicConfigFile"),
        (STATIC, None, "which cannot be read"),
    ],
)
def test_other_members_in_the_dynamic_file_are_refused_before_anything_is_touched(
    static: str, file: str | None, told: str
) -> None:
    more = {} if file is None else {"dynamic": dynamic(file)}
    with pytest.raises(StepFailed, match=told):
        edited(static, **more)


def test_the_hint_says_how_members_are_changed() -> None:
    with pytest.raises(StepFailed, match=r"(?s)reconfig -add 'server\.N=HOST"):
        edited(STATIC, dynamic=dynamic(""))


# the probe, for real


def in_folder(root: Path) -> tuple[Site, Settings]:
    conf, data = root / "conf", root / "data"
    for folder in (conf, data):
        folder.mkdir()
    plain = site()
    places = {"conf_dir": str(conf), "data_dir": str(data), "pid_dir": str(data), "log_dir": str(root)}
    described = plain.model_copy(update={"zookeeper": plain.zookeeper.model_copy(update=places)})
    step, _ = settings(described)
    assert isinstance(step, Settings)
    return described, step


def shell(text: str, cwd: Path, name: str = "sh") -> str:
    done = subprocess.run(
        [name], input=text, text=True, capture_output=True, check=True, cwd=cwd, env={**os.environ, "LC_ALL": "C"}
    )
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("name", ["dash", "bash", *filter(None, [os.environ.get("RUNBOOK_OLD_BASH")])])
@pytest.mark.parametrize(
    "written", ["{data}", "{data}/", "{root}/link", "{root}/conf/../data", "data", "./conf/../data"]
)
def test_the_same_folder_is_the_same_however_it_is_written(tmp_path: Path, written: str, name: str) -> None:
    described, step = in_folder(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "data")
    value = written.format(data=tmp_path / "data", root=tmp_path)
    lines = "".join(
        f"{key}={text}\n" for key, text in {**dict(step.values), "dataDir": value, **server_lines(described)}.items()
    )
    (tmp_path / "conf" / "zoo.cfg").write_text(lines)
    change = step.plan(shell(step.probe(), tmp_path, name))
    assert (change is None) is value.startswith("/")  # a relative one is made absolute
    if change is not None:
        assert f"+dataDir={tmp_path / 'data'}" in change.diff


def test_another_folder_is_another(tmp_path: Path) -> None:
    _, step = in_folder(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "conf" / "zoo.cfg").write_text(f"dataDir={tmp_path}/other \r\n")
    with pytest.raises(StepFailed, match=f"dataDir={tmp_path}/other, the parameters say"):
        step.plan(shell(step.probe(), tmp_path))


def test_a_relative_folder_starts_where_zookeeper_was_started(tmp_path: Path) -> None:
    described, step = in_folder(tmp_path)
    (tmp_path / "conf" / "zoo.cfg").write_text("dataDir=data\n")
    with subprocess.Popen(["sleep", "60"], cwd=tmp_path) as zookeeper:
        (tmp_path / "data" / "zookeeper_server.pid").write_text(str(zookeeper.pid))
        answer = shell(step.probe(), Path("/"))
        zookeeper.kill()
    assert f"data_at={tmp_path}/data\nwanted_at={tmp_path}/data\n" in answer
    assert described.zookeeper.data_dir == f"{tmp_path}/data"


def test_the_probe_brings_the_dynamic_file(tmp_path: Path) -> None:
    described, step = in_folder(tmp_path)
    static = STATIC.replace("/var/lib/zookeeper", str(tmp_path / "data"))
    (tmp_path / "conf" / "zoo.cfg").write_text(static.replace("/etc/zookeeper/conf", "conf"))  # relative
    with pytest.raises(StepFailed, match="which cannot be read"):
        step.plan(shell(step.probe(), tmp_path))
    (tmp_path / "conf" / "zoo.cfg.dynamic.100000000").write_text(DYNAMIC)
    assert step.plan(shell(step.probe(), tmp_path)) is None
    read = RunningMember.read(shell(running_question(described), tmp_path))
    assert read.pid == ""
    assert set(read.config.servers) == {"server.1", "server.2", "server.3"}


# what is foreign


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ("", {}),
        ("maxClientCnxns=1\n", {"maxClientCnxns": "1"}),
        ("maxClientCnxns = 60 \r\n", {}),
        ("minSessionTimeout=4000\nmaxSessionTimeout=40000\n", {}),
        ("maxSessionTimeout=600000\n", {"maxSessionTimeout": "600000"}),
        ("dataLogDir=/var/lib/zookeeper/\n", {}),
        ("dataLogDir=/srv/txn\n", {"dataLogDir": "/srv/txn"}),
        ("4lw.commands.whitelist=*\nadmin.enableServer=false\n", {}),
        ("forceSync=no\nskipACL=yes\n", {"forceSync": "no", "skipACL": "yes"}),
        ("server.4=h:2888:3888:observer\ngroup.1=1:2:3\n", {"server.4": "h:2888:3888:observer", "group.1": "1:2:3"}),
        ("standaloneEnabled=TRUE\n", {}),
        ("ticktime=9\n", {"ticktime": "9"}),
    ],
)
def test_settings_that_nothing_accounts_for(lines: str, found: dict[str, str]) -> None:
    described = site()
    assert foreign(ZooCfg(HADOOP + lines), described.zookeeper.allowed_settings, server_lines(described)) == found


def test_foreign_settings_are_accepted_by_name_and_by_pattern() -> None:
    allowed = ("maxClientCnxns", "server.*", "*Timeout")
    config = ZooCfg(HADOOP + "maxClientCnxns=1\nserver.4=h:2888:3888:observer\nminSessionTimeout=1\n")
    assert foreign(config, allowed, server_lines(site())) == {
        "autopurge.purgeInterval": "24",
        "autopurge.snapRetainCount": "30",
    }


def test_java_properties_of_the_process_are_foreign_too() -> None:
    command = (
        "java -Dzookeeper.log.dir=/l -Dzookeeper.4lw.commands.whitelist=* -Dzookeeper.skipACL=yes "
        "-Djute.maxbuffer=4194304 "
        "-Dzookeeper.DigestAuthenticationProvider.superDigest=x -Dcom.sun.management.jmxremote "
        "org.apache.zookeeper.server.quorum.QuorumPeerMain /etc/zookeeper/conf/zoo.cfg"
    )
    assert set(foreign_flags(command, ())) == {"skipACL", "jute.maxbuffer", "DigestAuthenticationProvider.superDigest"}
    assert foreign_flags(command, ("skipACL", "jute.*", "Digest*")) == {}


# what is in force


FILED = """\
tickTime=2000
initLimit=10
syncLimit=5
dataDir=/tmp/zk/n2/data/
clientPort=2181
server.1=127.0.2.1:2888:3888
server.2=127.0.2.2:2888:3888
server.3=127.0.2.3:2888:3888
"""


@pytest.mark.parametrize(
    ("filed", "myid", "differing"),
    [
        (FILED, 2, {}),
        (FILED.replace("\n", " \r\n"), 2, {}),
        (FILED.replace(":3888\n", ":3888:participant;2181\n"), 2, {}),
        (FILED.replace("syncLimit=5", "syncLimit=7"), 2, {"syncLimit": ("5", "7")}),
        (FILED + "maxClientCnxns=1\n", 2, {"maxClientCnxns": ("60", "1")}),
        (FILED + "maxSessionTimeout=60000\n", 2, {"maxSessionTimeout": ("40000", "60000")}),
        (FILED.replace("/tmp/zk/n2/data/", "/srv/zk"), 2, {"dataDir": ("/tmp/zk/n2/data", "/srv/zk")}),
        (FILED, 3, {"myid": ("2", "3")}),
        (
            FILED.replace("127.0.2.3", "127.0.2.9"),
            2,
            {"server.3": ("127.0.2.3:2888:3888:participant", "127.0.2.9:2888:3888")},
        ),
        (FILED + "server.4=h:1:2:observer\n", 2, {"server.4": ("none", "h:1:2:observer")}),
    ],
)
def test_what_a_member_runs_with_is_compared_with_its_file(
    filed: str, myid: int, differing: dict[str, tuple[str, str]]
) -> None:
    """`conf` as a leader of 3.8 answered it."""
    conf = said("zookeeper-3.8/leader.conf.txt")
    assert in_force(conf, ZooCfg(filed), myid) == differing


def test_what_zookeeper_made_of_zoo_cfg_itself_is_in_force_and_not_to_be_changed() -> None:
    """A first start with reconfigEnabled=true, as recorded in tests/payloads/zookeeper-3.8/reconfig."""
    static, members = (ZooCfg(said(f"zookeeper-3.8/reconfig/zoo.cfg{name}")) for name in ("", ".dynamic.100000000"))
    before = ZooCfg(said("zookeeper-3.8/reconfig/zoo.cfg.before"))
    assert static.servers == {}
    assert static.dynamic_file == "/tmp/z3/zoo.cfg.dynamic.100000000"
    assert misfits(members.servers, before.servers, 2181) == {}
    assert in_force(said("zookeeper-3.8/reconfig/conf.txt"), static.joined(members), 3) == {}


def test_conf_of_3_4_6_tells_no_members() -> None:
    """ConfCommand of 3.4.6, QuorumPeer.dumpConf."""
    conf = (
        "clientPort=2181\ndataDir=/var/lib/zookeeper/version-2\ndataLogDir=/var/lib/zookeeper/version-2\ntickTime=2000\n"
        "maxClientCnxns=60\nminSessionTimeout=4000\nmaxSessionTimeout=40000\nserverId=1\ninitLimit=10\nsyncLimit=5\n"
        "electionAlg=3\nelectionPort=3888\nquorumPort=2888\npeerType=0\n"
    )
    assert in_force(conf, ZooCfg(HADOOP), 1) == {}
    assert in_force(conf.replace("syncLimit=5", "syncLimit=9"), ZooCfg(HADOOP), 1) == {"syncLimit": ("9", "5")}


def test_what_runs_is_not_known_where_it_does_not_answer_conf() -> None:
    described = Site.parse(
        "name: x\nhosts: [{name: a, address: 127.0.0.1, roles: [zookeeper]}]\n"
        "zookeeper: {allow_even: true, client_port: 1}\n",
        Path("x.yml"),
    )
    (host,) = described.hosts
    assert RunningMember("7", "java", ZooCfg(HADOOP)).in_force(described, host) is None
    assert RunningMember("", "", ZooCfg(HADOOP)).in_force(described, host) is None


RUNS = "pid=7\nticks=1000\nhertz=100\nuptime=1000\nnow=5000.0\nwatched={} /etc/zookeeper/conf/zoo.cfg\n"


def test_a_member_that_runs_with_other_settings_than_its_file_restarts_though_the_file_is_old() -> None:
    differing = {"syncLimit": ("7", "5")}
    change = service(site(), InForce("7", differing)).plan(RUNS.format("1000.0"))
    assert change is not None
    assert (change.actions, change.diff) == (("stop", "start"), before_after(differing))
    assert service(site(), InForce("7", {})).plan(RUNS.format("1000.0")) is None
    assert service(site(), InForce("6", differing)).plan(RUNS.format("1000.0")) is None  # it was restarted since


def test_a_file_that_zookeeper_wrote_itself_is_no_reason_to_restart() -> None:
    """QuorumPeerConfig.editStaticConfig writes zoo.cfg right after the dynamic file, some time after the start."""
    written = RUNS.format("4500.9") + "dynamic_changed=4500.5\n"
    assert service(site()).plan(written) is None
    by_hand = service(site()).plan(RUNS.format("4700.0") + "dynamic_changed=4500.5\n")
    assert by_hand is not None
    assert service(site()).plan(written, frozenset({"/etc/zookeeper/conf/zoo.cfg"})) is not None


def test_a_member_of_the_site_is_found_however_it_is_written() -> None:
    wanted = server_lines(site())
    assert misfits({key: f"{value}:participant;0.0.0.0:2181" for key, value in wanted.items()}, wanted, 2181) == {}
    assert misfits({**wanted, "server.1": "junk"}, wanted, 2181) == {"server.1": ("junk", wanted["server.1"])}

"""Parameter files: what they mean, and how they are refused."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from runbook.errors import ParameterError, Problem
from runbook.secrets import references
from runbook.site import RegistryTlsParameters, Site, SshParameters
from runbook.values import PortRanges

CASES = Path(__file__).parent / "site_cases"
PRODUCTION = Path(__file__).parents[2] / "parameters" / "production.yml"

HOSTS = """\
hosts:
  - {name: a, address: 192.0.2.1, roles: [zookeeper, mesos_master, mesos_slave, marathon, docker, registry]}
  - {name: b, address: 192.0.2.2, roles: [zookeeper, mesos_master, mesos_slave, docker]}
  - {name: c, address: 192.0.2.3, roles: [zookeeper, mesos_master, docker]}
"""


def site(text: str = "", folder: Path = Path("/somewhere")) -> Site:
    """A site of three hosts with `text` added to its file."""
    return Site.parse(f"name: demo\n{HOSTS}{text}", folder / "demo.yml")


def refusal(text: str) -> str:
    """What is said about a text that is refused."""
    with pytest.raises(ParameterError) as caught:
        Site.parse(text, Path("demo.yml"))
    return str(caught.value)


class TestRefusals:
    @pytest.mark.parametrize("file", sorted(CASES.glob("*.yml")), ids=lambda file: file.stem)
    def test_says_all_that_is_wrong(self, file: Path) -> None:
        text = file.read_text()
        expected = [line.removeprefix("#| ") for line in text.splitlines() if line.startswith("#| ")]
        with pytest.raises(ParameterError) as caught:
            Site.parse(text, Path(file.name))
        assert "\n".join(map(str, caught.value.problems)).splitlines() == expected

    def test_never_repeats_a_literal_that_may_be_a_secret(self) -> None:
        text = (CASES / "literal_secrets.yml").read_text().split("#|")[0]
        assert text.count("tr0ub4dor") == 4
        assert "tr0ub4dor" not in refusal(text)
        assert "12345678" not in refusal(text)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("", "demo.yml:1: is empty"),
            ("# only a comment\n---\n", "demo.yml:1: is empty"),
            ("- a\n- b\n", "demo.yml:1: is not a mapping"),
            ("\njust text\n", "demo.yml:2: is not a mapping"),
            ("name: demo\n\thosts: []\n", "demo.yml:2: uses a tab where YAML wants blanks"),
            ("name: demo\nhosts: [a\nssh: {}\n", "demo.yml:3: is not valid YAML: expected ',' or ']', but got ':'"),
            ("name: *hunter2\n", "demo.yml:1: has a value that begins with * or !, which mean something else in YAML"),
            (
                "name: !hunter2!x y\n",
                "demo.yml:1: has a value that begins with * or !, which mean something else in YAML",
            ),
            ("name: demo\n---\nname: demo\n", "demo.yml:2: holds several YAML documents"),
            ("name: demo\nssh: \x00\n", "demo.yml:2: contains a control or invisible character (U+0000)"),
            ("name: " + "[" * 2000, "demo.yml: holds lists or mappings within each other by the hundred"),
        ],
    )
    def test_text_that_is_no_mapping(self, text: str, expected: str) -> None:
        heading, problem, remedy = refusal(text).split("\n")
        assert heading == "1 problem in the parameters"
        assert problem == expected
        assert remedy.startswith("  remedy: ")

    def test_a_syntax_error_quotes_nothing_that_may_be_a_secret(self) -> None:
        assert "hunter2" not in refusal("name: *hunter2\n") + refusal("name: !hunter2!x y\n")

    @pytest.mark.parametrize(
        ("make", "expected"),
        [
            (lambda file: None, "{file}: cannot be read: No such file or directory"),
            (lambda file: file.mkdir(), "{file}: cannot be read: Is a directory"),
            (lambda file: file.write_bytes(b"name: demo\ncluster: caf\xe9\n"), "{file}:2: is not UTF-8 text"),
        ],
        ids=["missing", "folder", "latin-1"],
    )
    def test_file_that_cannot_be_read(self, make: Any, expected: str, tmp_path: Path) -> None:
        file = tmp_path / "demo.yml"
        make(file)
        with pytest.raises(ParameterError) as caught:
            Site.load(file)
        (problem,) = caught.value.problems
        assert str(problem).splitlines()[0] == expected.format(file=file)
        assert problem.remedy

    def test_byte_order_mark_is_no_error(self, tmp_path: Path) -> None:
        (tmp_path / "demo.yml").write_bytes(b"\xef\xbb\xbfname: demo\n" + HOSTS.encode())
        assert Site.load(tmp_path / "demo.yml").name == "demo"

    def test_the_error_survives_pickling(self) -> None:
        with pytest.raises(ParameterError) as caught:
            Site.parse("name: demo\n", Path("demo.yml"))
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)

    def test_a_site_is_made_in_one_way_only(self) -> None:
        with pytest.raises(TypeError, match=r"Site\.load or Site\.parse"):
            Site(name="demo", hosts=())


class TestMeaning:
    def test_derived_values(self) -> None:
        assert site().zookeeper_hosts == "192.0.2.1:2181,192.0.2.2:2181,192.0.2.3:2181"
        assert site().mesos_zk == "zk://192.0.2.1:2181,192.0.2.2:2181,192.0.2.3:2181/mesos"
        assert site().marathon_zk == "zk://192.0.2.1:2181,192.0.2.2:2181,192.0.2.3:2181/marathon"
        assert site().registry_address == "192.0.2.1:8600"
        assert [host.name for host in site().having("mesos_slave")] == ["a", "b"]
        assert site().having("registry_web") == ()

    @pytest.mark.parametrize(("masters", "quorum"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)])
    def test_quorum(self, masters: int, quorum: int) -> None:
        """Document 2.2.3: the number of masters divided by two, plus one."""
        hosts = "".join(
            f"  - {{name: m{number}, address: 192.0.2.{number}, roles: [zookeeper, mesos_master]}}\n"
            for number in range(1, masters + 1)
        )
        permission = "zookeeper: {allow_even: true}\nmesos: {master: {allow_even: true}}\n"
        assert Site.parse(f"name: demo\nhosts:\n{hosts}{permission}", Path("demo.yml")).quorum == quorum

    def test_a_hosts_ssh_overrides_single_fields_of_the_sites(self) -> None:
        text = HOSTS.replace("docker]}\n  - {name: c", "docker], ssh: {user: deploy, become: sudo}}\n  - {name: c")
        demo = Site.parse(f"name: demo\nssh: {{port: 2222, key: k}}\n{text}", Path("/somewhere/demo.yml"))
        a, b, _ = demo.hosts
        assert (a.ssh.user, a.ssh.port, a.ssh.become) == ("root", 2222, "none")
        assert (b.ssh.user, b.ssh.port, b.ssh.become) == ("deploy", 2222, "sudo")
        assert b.ssh.key == Path("/somewhere/k")

    def test_myid_is_the_position_among_the_zookeeper_hosts(self) -> None:
        assert [host.myid for host in site().hosts] == [1, 2, 3]
        text = HOSTS.replace("[zookeeper, mesos_master, docker]", "[docker]")
        demo = Site.parse(
            f"name: demo\n{text}zookeeper: {{allow_even: true}}\nmesos: {{master: {{allow_even: true}}}}", Path()
        )
        assert [host.myid for host in demo.hosts] == [1, 2, None]

    def test_a_hosts_slave_overrides_the_sites(self) -> None:
        text = HOSTS.replace(
            "docker]}\n  - {name: c", "docker], slave: {mem: 2048, attributes: {rack: r2}}}\n  - {name: c"
        )
        defaults = "mesos: {slave: {cpus: 2, mem: 1024, attributes: {rack: r1, zone: z1}}}\n"
        a, b, _ = Site.parse(f"name: demo\n{text}{defaults}", Path("demo.yml")).hosts
        assert (a.slave.cpus, a.slave.mem, a.slave.attributes) == (2, 1024, {"rack": "r1", "zone": "z1"})
        assert (b.slave.cpus, b.slave.mem, b.slave.attributes) == (2, 2048, {"rack": "r2", "zone": "z1"})

    def test_local_paths_begin_at_the_parameter_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", "/home/operator")
        demo = site(
            "ssh: {key: ../.lab/id, known_hosts: ~/known, become_password: 'file:secrets/sudo'}\n"
            f"images: {{registry: {{tag: 'registry:2.3.0', file: /images/r.tar, sha256: '{'0' * 64}'}}}}\n"
            "apps: {db: {env: {DB_PASSWORD: {secret: 'file:secrets/db'}, MODE: fast}}}\n",
            folder=Path("/somewhere/parameters"),
        )
        assert demo.ssh.key == Path("/somewhere/.lab/id")
        assert demo.ssh.known_hosts == Path("/home/operator/known")
        assert demo.ssh.become_password == "file:/somewhere/parameters/secrets/sudo"
        assert demo.image("registry").file == Path("/images/r.tar")
        assert demo.apps["db"]["env"] == {
            "DB_PASSWORD": {"secret": "file:/somewhere/parameters/secrets/db"},
            "MODE": "fast",
        }
        assert SshParameters().known_hosts == Path("/home/operator/.ssh/known_hosts")

    def test_ports_that_a_host_needs(self) -> None:
        a, _, c = site("marathon: {libprocess_port: 8081}\n").hosts
        assert site().listening(c) == {
            "zookeeper.client_port": 2181,
            "zookeeper.quorum_port": 2888,
            "zookeeper.election_port": 3888,
            "mesos.master.port": 8150,
        }
        needed = site("marathon: {libprocess_port: 8081}\n").listening(a)
        assert needed.keys() - site().listening(c).keys() == {
            "mesos.slave.port",
            "marathon.http_port",
            "marathon.libprocess_port",
            "registry.port",
        }
        assert "marathon.libprocess_port" not in site().listening(a)

    def test_yaml_means_what_it_looks_like(self) -> None:
        demo = site("mesos: {cluster: 1:30, version: '1.10', slave: {attributes: {on: off, since: 2016-08-03}}}\n")
        assert demo.mesos.cluster == "1:30"
        assert demo.mesos.slave.attributes == {"on": "off", "since": "2016-08-03"}

    def test_is_frozen_copied_and_pickled(self) -> None:
        demo = site()
        with pytest.raises(ValueError, match="frozen"):
            demo.name = "other"  # type: ignore[misc]
        assert pickle.loads(pickle.dumps(demo)) == copy.deepcopy(demo) == demo
        assert len({*demo.hosts, *demo.hosts}) == 3

    def test_an_upload_that_is_not_declared(self) -> None:
        with pytest.raises(ParameterError) as caught:
            site().image("mysql")
        assert "images: no mysql is declared under images" in str(caught.value)
        with pytest.raises(ParameterError, match="no marathon is declared under artifacts"):
            site().artifact("marathon")


class TestRecords:
    TEXT = (
        "ssh: {become_password: 'env:DEMO_SUDO'}\n"
        "apps: {db: {env: {DB_PASSWORD: {secret: 'env:DEMO_DB'}, GREETING: 'hello grey-heron-42'}}}\n"
    )

    def test_show_references_and_mask_known_secrets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DEMO_DB", "grey-heron-42")
        demo = site(self.TEXT)
        for reference in references(demo.model_dump()):
            if reference == "env:DEMO_DB":
                reference.resolve()
        record = json.loads(demo.to_json())
        assert record == demo.masked()
        assert record["ssh"]["become_password"] == "env:DEMO_SUDO"
        assert record["apps"]["db"]["env"] == {"DB_PASSWORD": {"secret": "env:DEMO_DB"}, "GREETING": "hello ***"}
        assert record["mesos"]["slave"]["ports"] == "[8401-8599,8601-9100]"
        assert record["hosts"][0]["ssh"]["become_password"] == "env:DEMO_SUDO"

    def test_secret_references(self) -> None:
        assert set(references(site(self.TEXT).model_dump())) == {
            "env:DEMO_SUDO",
            "env:DEMO_DB",
            "env:RUNBOOK_MYSQL_PASSWORD",
            "env:RUNBOOK_MYSQL_ROOT_PASSWORD",
        }


class TestFiles:
    CONTENT = b"an archive"
    SHA256 = hashlib.sha256(CONTENT).hexdigest()

    def demo(self, folder: Path, sha256: str = SHA256, more: str = "") -> Site:
        return site(
            f"images: {{registry: {{tag: 'registry:2.3.0', file: r.tar, sha256: {sha256}}}}}\n"
            f"artifacts:\n  marathon: {{file: m.rpm, sha256: {sha256}}}\n{more}",
            folder,
        )

    def test_all_there(self, tmp_path: Path) -> None:
        for name in ("r.tar", "m.rpm"):
            (tmp_path / name).write_bytes(self.CONTENT)
        assert self.demo(tmp_path).missing_files() == []
        self.demo(tmp_path).check_files()

    def test_missing_and_changed(self, tmp_path: Path) -> None:
        (tmp_path / "m.rpm").write_bytes(b"another archive")
        demo = self.demo(tmp_path)
        image, artifact = demo.missing_files()
        file = tmp_path / "demo.yml"
        assert str(image).splitlines()[0] == (
            f"{file}:6: images.registry.file: {tmp_path}/r.tar cannot be read: No such file or directory"
        )
        found = hashlib.sha256(b"another archive").hexdigest()
        assert str(artifact).splitlines()[0] == (
            f"{file}:8: artifacts.marathon.sha256: {tmp_path}/m.rpm has another SHA-256: {found}"
        )
        with pytest.raises(ParameterError, match="2 problems"):
            demo.check_files()
        (tmp_path / "m.rpm").write_bytes(self.CONTENT)
        assert demo.missing_files(roles=["marathon"]) == []

    def test_only_what_the_roles_need(self, tmp_path: Path) -> None:
        demo = self.demo(tmp_path)
        assert demo.missing_files(roles=["zookeeper", "mesos_master", "mesos_slave", "registry_web"]) == []
        assert [problem.field for problem in demo.missing_files(roles=["marathon"])] == ["artifacts.marathon.file"]
        assert [problem.field for problem in demo.missing_files(roles=["docker"])] == ["images.registry.file"]

    def test_not_declared(self) -> None:
        fields = {problem.field: problem.message for problem in site().missing_files()}
        assert fields == {
            "marathon.artifact": "no marathon is declared under artifacts",
            "registry.image": "no registry is declared under images",
        }

    def test_certificates_of_the_registry(self, tmp_path: Path) -> None:
        (tmp_path / "ca.pem").touch()
        tls = "registry: {security: tls, tls: {ca: ca.pem, certificate: cert.pem, key: key.pem}}\n"
        problems = self.demo(tmp_path, more=tls).missing_files(roles=["registry"])
        assert {problem.field for problem in problems} == {
            "images.registry.file",
            "registry.tls.certificate",
            "registry.tls.key",
        }


def fields_of(kind: Any) -> set[str]:
    """The dotted names of every field of a model, with `*` for an item of a list or mapping."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        names: set[str] = set()
        for name, field in kind.model_fields.items():
            names |= {name, *(f"{name}.{inner}" for inner in fields_of(field.annotation))}
        return names
    prefix = "*." if getattr(kind, "__origin__", None) in (tuple, dict) else ""
    return {prefix + inner for argument in get_args(kind) for inner in fields_of(argument)}


def keys_of(data: Any) -> set[str]:
    """The same of data."""
    if isinstance(data, dict):
        here = set(data) | {f"{key}.{inner}" for key, value in data.items() for inner in keys_of(value)}
        return here | {f"*.{inner}" for value in data.values() for inner in keys_of(value)}
    if isinstance(data, list):
        return {f"*.{inner}" for item in data for inner in keys_of(item)}
    return set()


class TestProduction:
    def test_is_the_documents_cluster(self) -> None:
        production = Site.load(PRODUCTION)
        assert [(host.name, host.address, host.myid) for host in production.hosts] == [
            ("node1", "10.142.233.154", 1),
            ("node2", "10.142.233.155", 2),
            ("node3", "10.142.233.156", 3),
        ]
        assert production.mesos_zk == "zk://10.142.233.154:2181,10.142.233.155:2181,10.142.233.156:2181/mesos"  # 1.1
        assert production.quorum == 2  # 2.2.3
        assert production.registry_address == "10.142.233.154:8600"  # 7.2

    def test_has_every_field(self) -> None:
        optional = {"ssh.gateway", "hosts.*.ssh", "registry.tls"}  # shown in a comment: null or empty by default
        wanted = {name for name in fields_of(Site) if not any(name.startswith(f"{section}.") for section in optional)}
        assert len(wanted) > 100
        assert wanted - keys_of(yaml.safe_load(PRODUCTION.read_text())) == set()
        text = PRODUCTION.read_text()
        assert all(f"{name}: …" in text for name in RegistryTlsParameters.model_fields)

    def test_has_the_defaults_except_where_it_says_otherwise(self) -> None:
        names = [host.name for host in Site.load(PRODUCTION).hosts]
        hosts = yaml.safe_dump(
            [{**host, "slave": {}} for host in yaml.safe_load(PRODUCTION.read_text())["hosts"]], default_flow_style=True
        )
        bare = Site.parse(f"name: production\nhosts: {hosts}", PRODUCTION).masked()
        production = Site.load(PRODUCTION).masked()
        assert production["zookeeper"].pop("version") == "3.4.6-169--1"  # 0.3
        assert bare["zookeeper"].pop("version") is None
        assert production["mysql"].pop("host") == names[0]
        assert bare["mysql"].pop("host") is None
        for section in ("ssh", "hosts", "images", "artifacts"):
            del production[section], bare[section]
        assert production == bare


class TestPortRanges:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("[8401-8599,8601-9100]", "[8401-8599,8601-9100]"),
            ("8000-9100", "[8000-9100]"),
            (" [ 8601-9100 , 8401 - 8599 ] ", "[8401-8599,8601-9100]"),
            ("8080", "[8080-8080]"),
            ("8000-8099,8100-8199", "[8000-8199]"),
        ],
    )
    def test_parse(self, text: str, expected: str) -> None:
        assert str(PortRanges.parse(text)) == expected

    @pytest.mark.parametrize(
        "text", ["", "[]", "8000-", "a-b", "8000-9100]", "9-8", "1-2,2-3", "0-5", "1-65536", "1-2-3"]
    )
    def test_refuses(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"."):
            PortRanges.parse(text)

    @pytest.mark.parametrize("written", ['"[8401-8599,8601-9100]"', "[8401-8599,8601-9100]", "[8601-9100, 8401-8599]"])
    def test_in_a_file(self, written: str) -> None:
        assert str(site(f"mesos: {{slave: {{ports: {written}}}}}\n").mesos.slave.ports) == "[8401-8599,8601-9100]"

    @given(st.sets(st.integers(1, 300), min_size=1), st.sets(st.integers(1, 300)))
    def test_behave_as_sets_of_ports(self, ports: set[int], others: set[int]) -> None:
        ranges = PortRanges.parse(",".join(map(str, ports)))
        assert {port for port in range(302) if port in ranges} == ports
        assert len(ranges) == len(ports)
        assert PortRanges.parse(str(ranges)) == ranges
        rest = ranges.without(others)
        assert {port for port in range(302) if port in rest} == ports - others
        assert ranges.covers(rest)
        assert rest.covers(ranges) == (not ports & others)


class TestAnythingGoesIn:
    """Whatever a file says, it is a site or a ParameterError: never another exception."""

    SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["docker", "env:A"])
    TREES = st.recursive(
        SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8
    )

    @given(st.text())
    def test_text(self, text: str) -> None:
        assert all(problem.remedy for problem in self.read(text))

    @settings(deadline=None)
    @given(st.dictionaries(st.sampled_from(sorted(fields_of(Site))), TREES, min_size=1, max_size=3))
    def test_any_fields_with_any_values(self, changes: dict[str, Any]) -> None:
        data = {"name": "demo", **yaml.safe_load(HOSTS)}
        for path, value in changes.items():
            *way, last = path.split(".")
            place: Any = data
            for part in way:
                place = self.inside(place, part)
            if isinstance(place, dict):
                place[last] = value
        assert all(problem.remedy and problem.line for problem in self.read(yaml.safe_dump(data, allow_unicode=True)))

    @staticmethod
    def inside(place: Any, part: str) -> Any:
        """The mapping that `part` leads to, made where there is none."""
        key: Any = 0 if isinstance(place, list) else "any" if part == "*" else part
        found = place[0] if key == 0 else place.get(key)
        if not isinstance(found, dict) and not (isinstance(found, list) and found):
            place[key] = found = {}
        return found

    @staticmethod
    def read(text: str) -> tuple[Problem, ...]:
        try:
            demo = Site.parse(text, Path("demo.yml"))
        except ParameterError as error:
            return error.problems
        json.loads(demo.to_json())
        demo.missing_files()
        return ()

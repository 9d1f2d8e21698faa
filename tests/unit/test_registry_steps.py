"""The registry's host: which container it gets, its users' hashes, and certificates that Docker would refuse."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import bcrypt
import pytest
from certificates import NOW, Authority, write
from cryptography.x509.oid import ExtendedKeyUsageOID as Usage
from local_host import PRESENT, LocalHost
from registry_site import encoded, site

from runbook.errors import ParameterError, StepFailed
from runbook.remote import steps as core
from runbook.remote.steps import File, sha256
from runbook.secrets import Secret
from runbook.services.registry import steps
from runbook.services.registry.certificate import Certificate
from runbook.services.registry.steps import READ_ONLY, HasRead, Htpasswd

TLS = ", security: tls, tls: {certificate: c.pem, key: k.pem, ca: ca.pem}"
USERS = f"{TLS}, user: operator, password: 'env:REGISTRY_TEST_PASSWORD'"
PASSWORD = "correct horse battery"
IMAGE = "sha256:" + "ab" * 32


@pytest.fixture
def password(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("REGISTRY_TEST_PASSWORD", PASSWORD)
    return PASSWORD


# the container


def inspected(**environment: str) -> str:
    """What `docker inspect` prints of the registry's container as 7.3 runs it, with more variables."""
    variables = {"PATH": "/bin", "REGISTRY_STORAGE_DELETE_ENABLED": "true", **environment}
    container = {
        "Id": "f" * 64,
        "Name": "/registry",
        "Image": IMAGE,
        "Config": {
            "Image": "registry:2.3.0",
            "Env": [f"{k}={v}" for k, v in variables.items()],
            "Cmd": ["/etc/docker/registry/config.yml"],
        },
        "HostConfig": {
            "RestartPolicy": {"Name": "always", "MaximumRetryCount": 0},
            "PortBindings": {"5000/tcp": [{"HostIp": "", "HostPort": "8600"}]},
            "Binds": ["/opt/registry:/var/lib/registry"],
        },
        "State": {"Running": True, "Status": "running", "Restarting": False, "Paused": False},
        "Mounts": [],
    }
    image = {"Cmd": ["/etc/docker/registry/config.yml"], "Env": ["PATH=/bin"]}
    return f"image={IMAGE} {json.dumps(image)}\ncontainer={json.dumps(container)}\n"


def test_the_document_s_container_is_left_alone() -> None:
    assert steps.container(site()).plan(inspected()) is None


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        (READ_ONLY, '{"enabled":true}'),
        ("REGISTRY_HTTP_TLS_KEY", "/etc/registry/key.pem"),
        ("REGISTRY_AUTH", "htpasswd"),
    ],
)
def test_what_a_collection_or_tls_left_behind_is_a_difference(variable: str, value: str) -> None:
    change = steps.container(site()).plan(inspected(**{variable: value}))
    assert change is not None
    assert (change.actions, change.gate) == (("replace",), "recreate-container")
    assert f"-env {variable}: {value}\n" in change.diff


def test_read_only_is_a_difference_until_it_is_wanted() -> None:
    wanted = steps.container(site(), read_only=True, gate=None, note="read-only")
    assert wanted.label == "container registry (read-only)"
    assert wanted.plan(inspected(**{READ_ONLY: '{"enabled":true}'})) is None
    change = wanted.plan(inspected())
    assert change is not None
    assert change.gate is None


def test_deletion_is_said_either_way() -> None:
    change = steps.container(site(", delete_enabled: false")).plan(inspected())
    assert change is not None
    assert change.diff == "-env REGISTRY_STORAGE_DELETE_ENABLED: true\n+env REGISTRY_STORAGE_DELETE_ENABLED: false\n"


def test_with_tls_the_container_has_its_files_from_the_host(password: str) -> None:
    container = steps.container(site(USERS))
    assert container.volumes == {"/opt/registry": "/var/lib/registry", "/etc/registry": "/etc/registry"}
    assert container.environment["REGISTRY_HTTP_TLS_KEY"] == "/etc/registry/key.pem"
    assert container.environment["REGISTRY_AUTH"] == "htpasswd"
    assert not any(isinstance(value, Secret) for value in container.environment.values())
    assert "REGISTRY_AUTH" not in steps.container(site(TLS)).environment


def test_the_key_is_a_secret_and_its_owner_s(password: str) -> None:
    made = steps.container_steps(site(USERS), Certificate(b"chain", b"key", b"ca"))
    (key,) = (step for step in made if isinstance(step, File) and step.path.endswith("key.pem"))
    assert (key.mode, key.secret) == ("0600", True)
    assert isinstance(made[-1], HasRead)
    assert made[-1].paths == tuple(f"/etc/registry/{name}" for name in ("certificate.pem", "key.pem", "htpasswd"))
    assert [step.label for step in steps.container_steps(site(), None)] == [
        "SELinux label of /opt/registry",
        "container registry",
    ]


@pytest.mark.parametrize(
    ("user", "value", "field", "message"),
    [
        ("operator", "x" * 73, "registry.password", "longer than 72 bytes"),
        ("a:b", PASSWORD, "registry.user", "is not a user's name"),
    ],
)
def test_credentials_that_htpasswd_cannot_hold_are_refused(
    monkeypatch: pytest.MonkeyPatch, user: str, value: str, field: str, message: str
) -> None:
    monkeypatch.setenv("REGISTRY_TEST_PASSWORD", value)
    with pytest.raises(ParameterError, match=message) as refused:
        steps.credentials(site(f"{TLS}, user: '{user}', password: 'env:REGISTRY_TEST_PASSWORD'"))
    assert [problem.field for problem in refused.value.problems] == [field]


# htpasswd


def state(content: bytes, mode: str = "600") -> str:
    text = encoded(content.decode())
    return f"kind=file\nmode={mode}\nsize={len(content)}\nsha256={sha256(content)}\ncontent={text}\n"


def hashed(password: str) -> bytes:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4))


STEP = Htpasswd("/etc/registry/htpasswd", "operator", Secret(PASSWORD))


def test_a_hash_of_the_password_is_left_alone_whoever_made_it() -> None:
    as_htpasswd_writes_it = hashed(PASSWORD).replace(b"$2b$", b"$2y$")
    assert STEP.plan(state(b"operator:" + as_htpasswd_writes_it + b"\n")) is None


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (b"operator:" + hashed("another") + b"\n", "another password"),
        (b"operator:{SHA}x\n", "another password"),
        (b"", "no such user"),
    ],
    ids=["another password", "another hash", "nobody"],
)
def test_another_one_is_replaced_and_other_users_stay(found: bytes, told: str) -> None:
    other = b"reader:" + hashed("something") + b"\n"
    change = STEP.plan(state(other + found))
    assert change is not None
    assert change.diff == f"-operator: {told}\n+operator: the parameters' password\n"
    assert change.content is not None
    assert change.content.startswith(other)
    assert STEP.plan(state(change.content)) is None
    assert PASSWORD.encode() not in change.content


def test_a_file_that_others_can_read_is_closed_to_them() -> None:
    content = b"operator:" + hashed(PASSWORD) + b"\n"
    change = STEP.plan(state(content, mode="644"))
    assert change is not None
    assert (change.diff, change.content) == ("-mode: 644\n+mode: 600\n", content)


# containers that have read their files


@pytest.mark.parametrize(
    ("started", "pending", "restarts"),
    [("2000.5", (), False), ("1000.5", (), True), ("", (), False), ("2000.5", ("/etc/registry/key.pem",), True)],
)
def test_a_container_older_than_its_files_is_restarted(started: str, pending: tuple[str, ...], restarts: bool) -> None:
    step = HasRead("registry", ("/etc/registry/key.pem",))
    change = step.plan(
        f"started={started}\nnow=3000\nuptime=9\nwatched=1500.0 /etc/registry/key.pem\n", frozenset(pending)
    )
    assert bool(change) is restarts
    assert change is None or change.gate == "recreate-container"


def test_a_file_from_the_future_is_named_instead_of_restarting_the_registry_for_ever() -> None:
    with pytest.raises(StepFailed, match=r"key\.pem is dated 60 s in the future: registry may or may not run with it"):
        HasRead("registry", ("/etc/registry/key.pem",)).plan(
            "started=2000.5\nnow=3000\nuptime=9\nwatched=3060.0 /etc/registry/key.pem\n"
        )


@pytest.mark.parametrize("shell", PRESENT)
def test_the_probe_reads_docker_s_time(shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "STATE_DIR", str(tmp_path / "state"))
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\necho 2026-11-25T00:00:00.250000000Z\n")
    docker.chmod(0o755)
    file = tmp_path / "key.pem"
    file.write_text("key")
    host = LocalHost(
        shell, tmp_path / "state", environment={"PATH": f"{tmp_path}:/usr/bin:/bin", "TZ": "Asia/Shanghai"}
    )
    printed = host.probe(HasRead("registry", (str(file),)))
    assert "started=1795564800.250000000\n" in printed
    assert f" {file}" in printed


# certificates

ADDRESS = "198.51.100.11"
CA = Authority()


def test_a_certificate_for_the_registry_s_address_is_taken(tmp_path: Path) -> None:
    write(tmp_path, *CA.sign(ADDRESS, "registry.example", usage=Usage.SERVER_AUTH), CA.pem)
    found = Certificate.of(site(TLS, folder=tmp_path))
    assert found is not None
    assert set(found.names) == {ADDRESS, "registry.example"}
    assert found.until == (NOW + timedelta(days=20)).replace(microsecond=0)


def test_one_that_an_intermediate_signed_comes_with_it(tmp_path: Path) -> None:
    between = Authority("between", by=CA)
    certificate, key = between.sign(ADDRESS)
    write(tmp_path, certificate + between.pem, key, CA.pem)
    assert Certificate.of(site(TLS, folder=tmp_path)) is not None
    write(tmp_path, certificate, key, CA.pem)
    with pytest.raises(ParameterError, match="is not signed by CN=site CA"):
        Certificate.of(site(TLS, folder=tmp_path))


def test_one_that_is_its_own_ca_is_taken(tmp_path: Path) -> None:
    certificate, key = CA.sign(ADDRESS)
    write(tmp_path, certificate, key, certificate)
    assert Certificate.of(site(TLS, folder=tmp_path)) is not None


def test_plain_http_has_none() -> None:
    assert Certificate.of(site()) is None


@pytest.mark.parametrize(
    ("signed", "field", "message"),
    [
        (CA.sign("198.51.100.12"), "certificate", "is for 198.51.100.12, and Docker hosts know the registry as 198.51"),
        (CA.sign(), "certificate", "is for nobody"),
        (CA.sign("registry.example"), "certificate", r"alternative name IP:198\.51\.100\.11"),
        (CA.sign(ADDRESS, ends=NOW - timedelta(hours=1)), "certificate", "has expired on"),
        (CA.sign(ADDRESS, begins=NOW + timedelta(hours=1)), "certificate", "is not valid before"),
        (CA.sign(ADDRESS, usage=Usage.CLIENT_AUTH), "certificate", "may not be used by a server"),
        (Authority().sign(ADDRESS), "certificate", "is not signed by CN=site CA"),
        ((CA.sign(ADDRESS)[0], CA.sign(ADDRESS)[1]), "key", "is another certificate's"),
        ((b"nonsense", CA.sign(ADDRESS)[1]), "certificate", "holds no certificate in PEM"),
        ((CA.sign(ADDRESS)[0], b"nonsense"), "key", "holds no private key in PEM"),
    ],
)
def test_what_docker_would_refuse_is_refused_before_any_host(
    tmp_path: Path, signed: tuple[bytes, bytes], field: str, message: str
) -> None:
    write(tmp_path, *signed, CA.pem)
    with pytest.raises(ParameterError, match=message) as refused:
        Certificate.of(site(TLS, folder=tmp_path))
    assert [problem.field for problem in refused.value.problems] == [f"registry.tls.{field}"]


def test_a_ca_that_has_expired_is_named(tmp_path: Path) -> None:
    old = Authority(days=-1)
    write(tmp_path, *old.sign(ADDRESS), old.pem)
    with pytest.raises(ParameterError, match=r"ca\.pem has expired"):
        Certificate.of(site(TLS, folder=tmp_path))


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    write(tmp_path, *CA.sign(ADDRESS), CA.pem)
    (tmp_path / "k.pem").chmod(0o640)
    with pytest.raises(ParameterError, match=r"may be used by others than its owner \(mode 640\)"):
        Certificate.of(site(TLS, folder=tmp_path))


def test_all_files_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="3 problems"):
        Certificate.of(site(TLS, folder=tmp_path))


@pytest.mark.parametrize(
    ("name", "host", "fits"),
    [
        ("*.example", "registry.example", True),
        ("*.example", "a.b.example", False),
        ("Registry.example", "registry.example", True),
    ],
)
def test_names_are_compared_as_tls_does(tmp_path: Path, name: str, host: str, fits: bool) -> None:
    write(tmp_path, *CA.sign(name), CA.pem)
    named = site(TLS, folder=tmp_path)
    hosts = (named.hosts[0].model_copy(update={"address": host}), *named.hosts[1:])
    try:
        assert (Certificate.of(named.model_copy(update={"hosts": hosts})) is not None) is fits
    except ParameterError:
        assert not fits

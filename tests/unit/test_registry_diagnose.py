"""Why a push, a pull or a deletion fails, from what Docker says and from what hosts and container are like.

Lines of 20.10 are recorded from nodes of the lab; that of 1.11 is the document's (7.5.1).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from local_host import PRESENT, LocalHost
from registry_site import ADDRESS, EDITED, PACKAGED, probed, site

from runbook.errors import HostUnreachable
from runbook.remote.hosts import Output
from runbook.remote.shell import Piece, question
from runbook.services.registry import diagnose, transfer
from runbook.services.registry.trust import KEY, Trust

DOCUMENT = f"Get https://{ADDRESS}/v1/_ping: tls: oversized record received with length 20527"
PUSHED = f"""\
The push refers to repository [{ADDRESS}/lab/userland]
Get "https://{ADDRESS}/v2/": http: server gave HTTP response to HTTPS client"""


@pytest.mark.parametrize(
    ("said", "cause", "remedy"),
    [
        (DOCUMENT, "does not have the registry among its insecure ones", "run 7.2"),
        (PUSHED, "does not have the registry among its insecure ones", "run 7.2"),
        (
            f'Error response from daemon: Get "https://{ADDRESS}/v2/": x509: certificate signed by unknown authority',
            "does not have the CA",
            "run 7.2",
        ),
        ("x509: certificate is valid for 198.51.100.12, not 198.51.100.11", "not for the address", "have one signed"),
        (
            "x509: cannot validate certificate for 198.51.100.11 because it doesn't contain any IP SANs",
            "not for the",
            "",
        ),
        ("x509: certificate has expired or is not yet valid: current time 2026", "not valid at this time", "clock"),
        ("no basic auth credentials", "asks for a user and a password", "registry.user"),
        ("unauthorized: authentication required", "asks for a user and a password", "registry.user"),
        (f"Get http://{ADDRESS}/v2/: dial tcp {ADDRESS}: connect: connection refused", "nothing listens", "run 7.3"),
        ("dial tcp 198.51.100.11:8600: i/o timeout", "is not reached", "firewall"),
        ("unsupported: The operation is unsupported.", "read-only, or runs without", "run 7.3"),
        (
            "error parsing HTTP 405 response body: invalid character 'M' looking for beginning of value: "
            '"Method not allowed\\n"',
            "read-only, or runs without",
            "run 7.3",
        ),
        ("Error response from daemon: No such image: lab/userland:1", "is not on that host", "run chapter 5"),
        ("received unexpected HTTP status: 500 Internal Server Error", "cannot write", "disk and owner"),
        ("write /var/lib/docker/tmp/x: no space left on device", "a disk is full", "df"),
    ],
)
def test_what_docker_says_is_explained(said: str, cause: str, remedy: str) -> None:
    found = diagnose.explain(said)
    assert found is not None
    assert cause in found.cause
    assert remedy in found.remedy
    text, told = diagnose.why(said)
    assert text.startswith(found.cause)
    assert told == found.remedy


def test_what_is_not_known_is_shown_as_it_is() -> None:
    assert diagnose.why("something\n  else") == ("something else", None)


@pytest.mark.parametrize(
    "said",
    [
        f"Error response from daemon: manifest for {ADDRESS}/runbook/no-such-image:none not found: manifest unknown: "
        "manifest unknown",
        "Error: image runbook/no-such-image:none not found",
    ],
)
def test_an_image_that_is_not_there_shows_that_the_registry_is_reached(said: str) -> None:
    assert diagnose.explain(said) is None
    assert diagnose.ABSENT.search(said)


# hosts


def test_the_host_that_lacks_the_trust_is_named() -> None:
    hosts = {
        "node1": Trust.read(probed(settings=json.dumps({KEY: [ADDRESS]}), told=(ADDRESS,))),
        "node2": Trust.read(probed(told=("10.1.1.1:5000",))),
        "node3": Trust(),
        "node4": Trust.read(Output(error=HostUnreachable("no route"))),
    }
    found = [one for host, each in hosts.items() for one in diagnose.trust_findings(site(), host, each, b"")]
    assert [one.host for one in found] == ["node2", "node3", "node4"]
    assert found[0].cause == f"Docker there does not trust {ADDRESS} as it should"
    assert "insecure registries of the running Docker: 10.1.1.1:5000" in found[0].evidence
    assert "run 7.2" in found[0].remedy
    assert "chapter 5" in found[1].remedy


def test_two_places_are_told_before_docker_fails_on_them() -> None:
    both = Trust.read(probed({PACKAGED: EDITED}, settings=json.dumps({KEY: ["b:2"]}), told=(ADDRESS,)))
    (found,) = diagnose.trust_findings(site(), "node1", both, b"")
    assert "will not start again" in found.cause


# the container


def inspected(port: str = "8600", running: bool = True, **environment: str) -> Output:
    container = {
        "State": {"Running": running, "Status": "running" if running else "exited"},
        "Config": {"Env": [f"{key}={value}" for key, value in environment.items()]},
        "HostConfig": {"PortBindings": {"5000/tcp": [{"HostPort": port}]}},
    }
    listening = "listen=8600 812 /usr/bin/nginx\n" * (not running)
    return Output(f"{listening}container={json.dumps(container)}\nlog=panic: no configuration\n", "", 0)


DELETES = {"REGISTRY_STORAGE_DELETE_ENABLED": "true"}


def causes(output: Output, registry: str = "") -> list[str]:
    return [one.cause for one in diagnose.container_findings(site(registry), "node1", output)]


def test_a_container_as_7_3_runs_it_has_nothing_wrong() -> None:
    assert causes(inspected(**DELETES)) == []
    assert causes(inspected(), ", delete_enabled: false") == []


def test_what_is_wrong_with_a_container_is_told() -> None:
    assert causes(inspected()) == ["the registry does not delete: it answers 405 (7.5.2)"]
    read_only = {"REGISTRY_STORAGE_MAINTENANCE_READONLY": '{"enabled":true}'}
    assert causes(inspected(**DELETES, **read_only)) == ["the registry is read-only"]
    assert causes(inspected(port="5000", **DELETES)) == ["the registry is not published at port 8600"]


def test_a_folder_that_selinux_keeps_from_the_registry_is_told() -> None:
    """What registry:2.3 logs when its folder has usr_t and Docker runs with --selinux-enabled."""
    output = inspected(**DELETES)
    line = 'err.detail="filesystem: mkdir /var/lib/registry/docker: permission denied"'
    (found,) = diagnose.container_findings(site(), "node1", Output(f"{output.stdout}log={line}\n", "", 0))
    assert (found.cause, found.evidence) == ("the registry may not use its folder", line)
    assert "run 7.3, which labels /opt/registry" in found.remedy


def test_a_container_that_does_not_run_is_told_with_its_log_and_who_has_its_port() -> None:
    stopped, port = diagnose.container_findings(site(), "node1", inspected(running=False))
    assert stopped.cause == "the container registry does not run"
    assert stopped.evidence == "exited\npanic: no configuration"
    assert "something else listens at the registry's port 8600" in port.cause
    assert "nginx" in port.evidence
    (absent,) = diagnose.container_findings(site(), "node1", Output("", "", 0))
    assert absent.evidence == "there is no such container"


# images that travel


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        ("lab/userland:1", f"{ADDRESS}/lab/userland:1"),
        ("ubuntu:14.04", f"{ADDRESS}/ubuntu:14.04"),
        ("quay.io/team/app:2", f"{ADDRESS}/team/app:2"),
        ("localhost:5000/app:2", f"{ADDRESS}/app:2"),
    ],
)
def test_an_image_s_name_in_the_registry(tag: str, name: str) -> None:
    assert transfer.named(ADDRESS, tag) == name


def test_digests_are_read_from_what_docker_prints() -> None:
    digest = f"sha256:{'a' * 64}"
    pushed = transfer.Tried("push", 0, f"The push refers to repository [x]\n1: digest: {digest} size: 527\n")
    pulled = transfer.Tried("pull", 0, f"1: Pulling from lab/userland\nDigest: {digest}\nStatus: Image is up to date\n")
    assert pushed.digest == pulled.digest == digest
    assert transfer.Tried("tag", 0, "").digest == ""


def test_the_client_s_configuration_is_in_no_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY_TEST_PASSWORD", "correct horse battery")
    tls = ", security: tls, tls: {certificate: c.pem, key: k.pem, ca: ca.pem}"
    wanted = site(f"{tls}, user: operator, password: 'env:REGISTRY_TEST_PASSWORD'")
    assert json.loads(transfer._client(wanted))["auths"].keys() == {ADDRESS}
    script = transfer._pull(wanted, f"{ADDRESS}/a:1")
    assert "correct" not in script
    assert 'rm -rf "$DOCKER_CONFIG"\' EXIT' in script
    assert transfer._client(site()) == "{}"


DOCKER = """\
#!/bin/sh
# Images as files below $IMAGES, named by their tags, with their ids in them; `pull` and `push` fail as $FAILS says.
file() { echo "$IMAGES/$(echo "$1" | tr / _)"; }
case $1 in
inspect) for name; do :; done; cat "$(file "$name")" ;;
tag) if [ -e "$(file "$2")" ]; then cp "$(file "$2")" "$(file "$3")"; else echo "$2" > "$(file "$3")"; fi ;;
rmi) rm "$(file "$2")" ;;
push) case $FAILS in push) echo refused; exit 1 ;; esac ;;
pull) case $FAILS in pull) echo refused; exit 1 ;; esac; echo id > "$(file "$2")" ;;
esac
"""


@pytest.mark.parametrize("had", [True, False])
@pytest.mark.parametrize("fails", ["", "push", "pull"])
@pytest.mark.parametrize("shell", PRESENT)
def test_a_host_keeps_the_names_that_it_had_and_no_other(tmp_path: Path, shell: str, fails: str, had: bool) -> None:
    tag, name = "lab/userland:1", f"{ADDRESS}/lab/userland:1"
    images, program = tmp_path / "images", tmp_path / "bin/docker"
    for folder in (images, program.parent):
        folder.mkdir()
    program.write_text(DOCKER)
    program.chmod(0o755)
    for one in (tag, name) if had else (tag,):
        (images / one.replace("/", "_")).write_text("id\n")
    before = {file.name: file.read_text() for file in images.iterdir()}
    path = f"{program.parent}:{os.environ['PATH']}"
    host = LocalHost(shell, tmp_path, environment={"PATH": path, "IMAGES": str(images), "FAILS": fails})
    frame = host.run(Piece("0", question(transfer._there_and_back(site(), tag, name))))["0"]
    tried = transfer._tried(Output(frame.out, frame.err, frame.status))
    assert [one.name for one in tried if one.status] == [fails] * bool(fails)
    assert {file.name: file.read_text() for file in images.iterdir()} == before

"""The double of the registry's page before a real registry with TLS and a user, as chapter 8 sets it up."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bcrypt
from certificates import Authority, write
from registry_daemon import Pusher, layer, running

from runbook.lab.doubles.registry_web.server import Server, Settings
from runbook.secrets import Secret
from runbook.services.http import Endpoint
from runbook.services.registry import Registry
from runbook.services.registry_web.page import compare, read

USER, PASSWORD = "reader", "horse-battery"


@contextmanager
def page(**variables: str) -> Iterator[Endpoint]:
    with Server(("127.0.0.1", 0), Settings.of(variables)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with Endpoint(f"http://127.0.0.1:{server.server_port}") as endpoint:
                yield endpoint
        finally:
            server.shutdown()
            thread.join()


def test_it_lists_a_secure_registry_with_the_variables_that_it_needs_and_not_without(
    binary: Path, tmp_path: Path
) -> None:
    authority = Authority()
    write(tmp_path, *authority.sign("127.0.0.1"), authority.pem)
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    (tmp_path / "htpasswd").write_text(f"{USER}:{hashed}\n")
    http = {"tls": {"certificate": str(tmp_path / "c.pem"), "key": str(tmp_path / "k.pem")}}
    users = {"htpasswd": {"realm": "site", "path": str(tmp_path / "htpasswd")}}
    with (
        running(binary, tmp_path / "registry", http=http, auth=users) as daemon,
        Registry(daemon.url, auth=(USER, Secret(PASSWORD)), ca=tmp_path / "ca.pem") as registry,
    ):
        pusher = Pusher(daemon.url)
        pusher.session.trust_env, pusher.session.verify = False, str(tmp_path / "ca.pem")
        pusher.session.auth = (USER, PASSWORD)
        pusher.image("demo/hello", "1", (layer("one"),))
        url = {"REGISTRY_URL": f"{daemon.url}/v2"}
        trusts = {"REGISTRY_TRUST_ANY_SSL": "true"}
        user = {"REGISTRY_BASIC_AUTH": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
        with page(**url, **trusts, **user) as endpoint:
            evidence = compare(read(endpoint), registry)
            assert (evidence.holds, evidence.text) == (True, "both list 1 repository: demo/hello")
            assert "1</a>" in endpoint.get("/repository/tags/demo%2Fhello").text
        for less, said in (({**url, **user}, "CERTIFICATE_VERIFY_FAILED"), ({**url, **trusts}, "status 401")):
            with page(**less) as endpoint:
                evidence = compare(read(endpoint), registry)
                assert not evidence.holds
                assert said in evidence.text

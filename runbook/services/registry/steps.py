"""The registry's host as it should be: image, certificate, users and container (document 7.1 and 7.3).

Of the document's two `docker run --name registry`, which conflict, the one that lets images be deleted is kept. With
`security: tls` the container has certificate, key and htpasswd from a folder of the host.

Sources: 'Deploying a registry server' and 'Configuring a registry' of Docker's documentation (2.3 to 2.8).
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

import bcrypt

from runbook.errors import ParameterError, Problem, StepFailed
from runbook.remote.containers import RECREATE, Container, Image
from runbook.remote.labels import ContainerFolder
from runbook.remote.shell import facts, quote
from runbook.remote.steps import (
    CONTENT_CAP,
    Change,
    Directory,
    EditedFile,
    File,
    Step,
    before_after,
    newer,
    watched,
)
from runbook.secrets import Secret
from runbook.services.registry.certificate import Certificate
from runbook.site import Site

STORAGE = "/var/lib/registry"
"""Where the registry keeps images, in the container."""
CONFIG = "/etc/docker/registry/config.yml"
"""The registry's configuration, in the container."""
FILES = "/etc/registry"
"""Where certificate, key and htpasswd lie, on the host and in the container."""
READ_ONLY = "REGISTRY_STORAGE_MAINTENANCE_READONLY"
"""A value in JSON: with ..._READONLY_ENABLED=true the registry does not start."""

_TLS = {
    "REGISTRY_HTTP_TLS_CERTIFICATE": f"{FILES}/certificate.pem",
    "REGISTRY_HTTP_TLS_KEY": f"{FILES}/key.pem",
}
_USERS = {
    "REGISTRY_AUTH": "htpasswd",
    "REGISTRY_AUTH_HTPASSWD_REALM": "registry",
    "REGISTRY_AUTH_HTPASSWD_PATH": f"{FILES}/htpasswd",
}
_LONGEST = 72  # bytes of a password that bcrypt takes


def image(site: Site) -> Image:
    """The registry's image from its archive, by its explicit tag (7.1). Raises ParameterError where it is missing."""
    declared = site.image(site.registry.image)
    return Image(declared.tag, declared.file, declared.sha256)


@dataclass(frozen=True)
class RegistryContainer(Container):
    """The registry's container. Variables of TLS, users and read-only mode are no secret; one that is left over would
    make another registry of it. `note` tells one step of several from the others.
    """

    note: str = ""

    SHOWN = frozenset({*_TLS, *_USERS, READ_ONLY})

    @property
    def label(self) -> str:
        return f"{super().label}{self.note and f' ({self.note})'}"


def container(site: Site, *, read_only: bool = False, gate: str | None = RECREATE, note: str = "") -> RegistryContainer:
    """The registry's container (7.3); `read_only`: it takes no changes, as for collecting garbage."""
    settings = site.registry
    environment: dict[str, str | Secret] = {"REGISTRY_STORAGE_DELETE_ENABLED": str(settings.delete_enabled).lower()}
    volumes = {settings.data_dir: STORAGE}
    if settings.security == "tls":
        environment |= _TLS | (_USERS if settings.user is not None else {})
        volumes[FILES] = FILES
    if read_only:
        environment[READ_ONLY] = '{"enabled":true}'
    return RegistryContainer(
        settings.container,
        site.image(settings.image).tag,
        ports={settings.port: settings.container_port},
        environment=environment,
        volumes=volumes,
        gate=gate,
        note=note,
    )


def files(site: Site, certificate: Certificate | None) -> tuple[Step, ...]:
    """Certificate, key and users of the registry on its host; nothing where it speaks plain HTTP."""
    if certificate is None:
        return ()
    users: tuple[Step, ...] = ()
    if (login := credentials(site)) is not None:
        users = (Htpasswd(f"{FILES}/htpasswd", *login),)
    return (
        Directory(FILES, mode="0700"),
        File(f"{FILES}/certificate.pem", certificate.chain),
        File(f"{FILES}/key.pem", certificate.key, mode="0600", secret=True),
        *users,
    )


def container_steps(site: Site, certificate: Certificate | None) -> tuple[Step, ...]:
    """All that makes the registry run: its files, its container, and that it has read them."""
    own = files(site, certificate)
    watched = tuple(step.path for step in own if isinstance(step, File | Htpasswd))
    restart = (HasRead(site.registry.container, watched),) if watched else ()
    # files first: what is written gets the label of its folder's default
    labels = (*((ContainerFolder(FILES, watched),) if watched else ()), ContainerFolder(site.registry.data_dir))
    return (*own, *labels, container(site), *restart)


def credentials(site: Site) -> tuple[str, Secret] | None:
    """The registry's user and password; None where it asks nobody.

    Raises SecretError where the password cannot be had, and ParameterError for one that htpasswd cannot hold.
    """
    settings = site.registry
    if settings.security != "tls" or settings.user is None or settings.password is None:
        return None
    password = settings.password.resolve()
    if len(password.reveal().encode()) > _LONGEST:
        message = f"is longer than {_LONGEST} bytes, of which bcrypt takes no more"
        raise ParameterError([Problem(site.file, 0, "registry.password", message, "choose a shorter one")])
    return settings.user, password


@dataclass(frozen=True)
class Htpasswd(EditedFile):
    """A user of an htpasswd file with this password, as bcrypt; the lines of other users stay. Mode 0600, root.

    The hash that is there is verified against the password, and written anew only where it is another one's. Hashes
    are never shown.
    """

    path: str
    user: str
    password: Secret = field(repr=False)

    @property
    def label(self) -> str:
        return f"user {self.user} in {self.path}"

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        present = self._present(state)
        content = base64.b64decode(present.get("content", ""))
        if int(present.get("size", 0)) > CONTENT_CAP:
            raise StepFailed(f"{self.path} is larger than {CONTENT_CAP} bytes", "look at the host: nothing was touched")
        absent = present["kind"] == "absent"
        found = "no such user" if self._hash(content) is None else "another password"
        differences = {self.user: (found, "the parameters' password")} if not self._holds(content) else {}
        if not absent and present["mode"] != "600":
            differences["mode"] = (present["mode"], "600")
        if not differences:
            return None
        return Change(
            "create" if absent else "edit",
            before_after(differences),
            observed="absent" if absent else present["sha256"],
            content=self._edited(content),
        )

    def script(self, change: Change) -> str:
        return self._write(change, "0600", "root:root")

    def _edited(self, before: bytes) -> bytes:
        if self._holds(before):
            return before
        own = f"{self.user}:".encode()
        # the registry verifies it at every request: each round more doubles what that costs
        hashed = bcrypt.hashpw(self.password.reveal().encode(), bcrypt.gensalt(10))
        kept = [line for line in before.splitlines() if not line.startswith(own)]
        return b"\n".join([*kept, own + hashed, b""])

    def _hash(self, content: bytes) -> bytes | None:
        """The user's hash; of several, the registry takes the last one."""
        own = f"{self.user}:".encode()
        found = [line.removeprefix(own).strip() for line in content.splitlines() if line.startswith(own)]
        return found[-1] if found else None

    def _holds(self, content: bytes) -> bool:
        hashed = self._hash(content)
        try:
            return hashed is not None and bcrypt.checkpw(self.password.reveal().encode(), hashed)
        except ValueError:  # not a hash of bcrypt, of which the registry takes no other
            return False


@dataclass(frozen=True)
class HasRead(Step):
    """A container that was started after its files last changed: the registry reads certificate and key once."""

    container: str
    paths: tuple[str, ...]

    @property
    def touches(self) -> frozenset[str]:
        return frozenset({f"container:{self.container}"})

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({f"container:{self.container}"})

    @property
    def label(self) -> str:
        return f"{self.container} has read its files"

    def probe(self) -> str:
        name = quote(self.container)
        return (
            "started=\nif command -v docker >/dev/null 2>&1; then\n"
            f"  at=$(timeout 30 docker inspect --type container -f '{{{{.State.StartedAt}}}}' {name} 2>/dev/null) &&\n"
            '  started=$(date -d "$at" +%s.%N)\nfi\necho "started=$started"\n' + watched(self.paths)
        )

    def plan(self, state: str, pending: frozenset[str] = frozenset()) -> Change | None:
        present = facts(state)
        if not present["started"]:
            return None  # it is still to be made, and reads them then
        changed = newer(self.container, state, float(present["started"]), pending, self.paths, since_boot=False)
        if not changed:
            return None
        return Change(
            "restart",
            before_after({self.container: (f"older than {', '.join(changed)}", "started after them")}),
            gate=RECREATE,
            consequence=f"{self.container} is restarted: pushes and pulls that are under way fail, and can be repeated",
        )

    def script(self, change: Change) -> str:
        return f"docker restart {quote(self.container)} >/dev/null\n"

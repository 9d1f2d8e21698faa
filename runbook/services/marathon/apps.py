"""App definitions: where they come from, what of them matters, and how a wanted one differs from a present one.

Marathon answers with more than it was sent: defaults, ports that it chose, counts and versions; and since 1.5 it moves
fields to other places. `differences` sees through that. Of the wanted definition every field counts. Of the present one
those count as well that the wanted one leaves out and that would otherwise go on (`env`, `labels`, constraints, health
checks, container, …), and resources, whose defaults are alike in all versions. What else the wanted definition leaves
out is Marathon's to choose, `instances` included: leaving it out leaves scaling to others.

Sources: Marathon's REST API documentation of 1.0 and of 1.5 (AppDefinition.json, app.raml), its 'Migrating Apps to the
1.5 Networking API', and `AppDefinition.scala` and `AppNormalization.scala` for the defaults.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runbook import secrets
from runbook.errors import AppInvalid, ParameterError, Problem
from runbook.located import LARGEST_FILE, Location
from runbook.paths import read_regular
from runbook.secrets import MASK, Secret, SecretReference
from runbook.services.marathon.fields import STATE
from runbook.site import Site, environment_findings, with_absolute_references

App = dict[str, Any]
"""An app's definition, as Marathon's API has it. An `env` value may be a reference to a secret, `{secret: "env:X"}`.
With a name that the app's `secrets` defines, `{secret: "name"}` is a secret of Marathon's own, which is sent as it is.
"""

_RESOURCES = {"cpus": 1.0, "mem": 128.0, "disk": 0.0, "gpus": 0}
_NONE: Mapping[str, Any] = {
    **dict.fromkeys(("cmd", "args", "user", "container", "acceptedResourceRoles")),
    **{name: {} for name in ("env", "labels", "secrets")},
    **{name: [] for name in ("constraints", "healthChecks", "dependencies", "fetch", "storeUrls", "readinessChecks")},
}
"""Fields that say nothing when they are empty."""

_CLEARABLE = {name: value for name, value in _NONE.items() if value is not None}
_HEALTH_CHECK = {
    "protocol": "HTTP",
    "path": "/",
    "portIndex": 0,
    "gracePeriodSeconds": 300,
    "intervalSeconds": 60,
    "timeoutSeconds": 20,
    "maxConsecutiveFailures": 3,
    "ignoreHttp1xx": False,
}
_PORT_MAPPING = {"containerPort": 0, "hostPort": 0, "protocol": "tcp", "labels": {}}
_PORT = {"port": 0, "protocol": "tcp", "labels": {}}
_FETCH = {"extract": True, "executable": False, "cache": False}
_MODES = {None: "host", "HOST": "host", "BRIDGE": "container/bridge", "USER": "container", "NONE": "none"}


# where definitions come from


def app_of(site: Site, name: str) -> App:
    """The app that the parameters declare under `apps`, with its id; secrets stay references.

    Raises AppInvalid where there is none of that name.
    """
    if name not in site.apps:
        raise AppInvalid(
            f"{site.file} declares no app {name}", f"its apps: {', '.join(site.apps) or 'none'}; add it under `apps`"
        )
    return {"id": app_id(name), **site.apps[name]}


def app_from_file(path: str | Path) -> App:
    """The app that a JSON file declares, as the document's `-d@marathon-test.json` (5.3).

    As in the parameters, a secret under `env` is a reference, whose relative `file:` begins at the file's folder.
    Raises ParameterError.
    """
    file = Path(path)
    try:
        text = read_regular(file, LARGEST_FILE).decode()
        found = json.loads(text)
    except OSError as error:
        raise _problem(file, 0, "", f"cannot be read: {error.strerror}", "correct the path") from error
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 0)
        raise _problem(file, line, "", f"is not JSON: {error}", "correct it there") from error
    if not isinstance(found, dict) or not isinstance(found.get("id"), str):
        raise _problem(file, 1, "id", "is not the definition of one app", 'write {"id": "name", …}')
    problems = [
        Problem(
            file,
            _line_of(finding.location, text),
            ".".join(map(str, finding.location)),
            finding.message,
            finding.remedy,
        )
        for finding in environment_findings(found)
    ]
    if problems:
        raise ParameterError(problems)
    return {**with_absolute_references(found, file.absolute().parent), "id": app_id(found["id"])}


def _line_of(place: Location, text: str) -> int:
    """The line, from 1, in which a variable stands; that of `env` or `secrets` without one."""
    word = json.dumps(place[min(1, len(place) - 1)], ensure_ascii=False)
    return next((number for number, line in enumerate(text.splitlines(), 1) if word in line), 1)


def app_id(name: str) -> str:
    """An app's id in its absolute form, as Marathon answers it."""
    return "/" + name.strip("/")


_TASK = re.compile(r"(?P<app>.+?)\.(?:instance-|marathon-)?[0-9a-f]{8}-[0-9a-f-]{27}(?:\._.+)?")


def app_of_task(task_id: str) -> str | None:
    """The app of a task, by the id that Marathon gives it: `shop_web.UUID`, later also `shop_web.instance-UUID._app.1`.

    None for a task of another framework.
    """
    match = _TASK.fullmatch(task_id)
    return app_id(match["app"].replace("_", "/")) if match else None


def _problem(file: Path, line: int, field: str, message: str, remedy: str) -> ParameterError:
    return ParameterError([Problem(file, line, field, message, remedy)])


# what differs


@dataclass(frozen=True)
class Difference:
    """One value of an app that is not as it is wanted: `field` names it (`container.docker.image`).

    None stands for nothing. A secret is a `Secret` on both sides, so that it shows itself nowhere.
    """

    field: str
    present: Any
    wanted: Any

    def __str__(self) -> str:
        return f"{self.field}: {_shown(self.present)} -> {_shown(self.wanted)}"

    @property
    def diff(self) -> str:
        """The same as lines of a diff; nothing has no line."""
        sides = (("-", self.present), ("+", self.wanted))
        return "".join(f"{sign}{self.field}: {_shown(value)}\n" for sign, value in sides if value is not None)


def differences(wanted: App, present: App) -> list[Difference]:
    """In what a present app (as Marathon answers it, of any version from 1.1 to 1.11) is not as it is wanted.

    Raises SecretError where a reference in the wanted definition cannot be resolved.
    """
    want, have = _normal({**wanted, "env": _resolved(wanted)}), _normal(present)
    if want["networks"] == ["host"]:
        want.get("container", {}).pop("portMappings", None)  # they say nothing there; some versions leave them out
    else:
        want.pop("requirePorts", None)  # it says nothing here; from 1.5 on it is false
    found: list[Difference] = []
    for name in sorted(want.keys() | (have.keys() & (_NONE.keys() | _RESOURCES.keys()))):
        default = _RESOURCES.get(name, _NONE.get(name))
        found += _compare(name, have.get(name, default), want.get(name, default))
    return found


def update_of(wanted: App, found: Iterable[Difference]) -> App:
    """The body of the PUT that removes these differences: the wanted definition, and what must be emptied.

    Secrets are in it in plain text: for the request only. Raises AppInvalid for what a PUT cannot take away.
    """
    gone = {name for name in (difference.field.partition(".")[0] for difference in found) if name not in _named(wanted)}
    stuck = sorted(name for name in gone if name in _NONE and name not in _CLEARABLE)
    if stuck:  # `cmd.orElse(app.cmd)`, `args.orElse(app.args)`, …: AppUpdate.scala, AppConversion.scala
        raise AppInvalid(
            f"Marathon cannot take {', '.join(stuck)} away from {app_id(wanted['id'])}: a PUT leaves out what it keeps",
            "delete the app, then create it",
        )
    cleared = {name: _CLEARABLE[name] for name in gone if name in _CLEARABLE}
    defaults = {name: _RESOURCES[name] for name in gone if name in _RESOURCES}
    return body_of({**defaults, **cleared, **wanted})


def body_of(app: App) -> App:
    """A definition as it is sent, secrets in plain text: for the request only."""
    body: App = secrets.reveal({name: value for name, value in app.items() if name not in STATE and value is not None})
    for newer, older in (("fetch", "uris"), ("portDefinitions", "ports")):
        if newer in body and older in body:  # an answer has both; up to 1.4 a request that has both is refused
            body.pop(older if body[newer] or not body[older] else newer)
    return {**body, "id": app_id(body["id"])}


def _named(app: App) -> set[str]:
    """The fields that a definition gives, by their normal names."""
    return {"fetch" if name == "uris" else name for name, value in app.items() if value is not None}


def definition(app: App, sign: str = "+") -> str:
    """A whole definition as lines of a diff, a field each; of a secret its reference, or the mask."""
    return "".join(
        f"{sign}{field}: {_shown(value)}\n"
        for name, given in app.items()
        if name not in STATE and name != "id"
        for field, value in _flat(name, given)
    )


def _flat(field: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The values below a field, each with its whole name."""
    if isinstance(value, dict) and value and not secrets.is_reference(value):
        for name, inner in value.items():
            yield from _flat(f"{field}.{name}", inner)
    else:
        yield field, value


# one form for all versions


def _normal(app: App) -> App:
    """What matters of a definition, in one form; what says nothing is left out."""
    found = {name: value for name, value in app.items() if name not in STATE and value is not None}
    container = dict(found.get("container") or {})
    docker = dict(container.get("docker") or {})
    networks = _networks(found, docker)
    mappings = container.pop("portMappings", None) or docker.pop("portMappings", None)
    docker.pop("portMappings", None)
    docker.pop("network", None)
    for name in ("networks", "ipAddress", "ports", "portDefinitions", "uris"):
        found.pop(name, None)
    for name in ("args", "acceptedResourceRoles"):
        if not found.get(name):
            found.pop(name, None)
    normal: App = {
        **found,
        "id": app_id(app["id"]),
        "networks": networks,
        "container": _container(container, docker, mappings),
        "env": app.get("env") or {},
        "constraints": sorted([word for word in c if word != ""] for c in app.get("constraints") or []),
        "healthChecks": [_health_check(check) for check in app.get("healthChecks") or []],
        "dependencies": sorted(app_id(name) for name in app.get("dependencies") or []),
        "fetch": _fetch(app),
    }
    if normal.get("acceptedResourceRoles") == ["*"]:
        del normal["acceptedResourceRoles"]  # all resources, which is the default
    if networks == ["host"] and (ports := _ports(app)) is not None:
        normal["portDefinitions"] = ports
    return {name: value for name, value in normal.items() if name not in _NONE or value != _NONE[name]}


def _networks(app: App, docker: App) -> list[str]:
    """The networks of an app: a Docker container's own until 1.4, the app's from 1.5 on."""
    given = app.get("networks")
    if given is None:
        name = docker.get("network") or ("USER" if app.get("ipAddress") else None)
        given = [{"mode": _MODES[name], "name": (app.get("ipAddress") or {}).get("networkName")}]
    return sorted(":".join(filter(None, [n.get("mode", "container"), n.get("name")])) for n in given) or ["host"]


def _container(container: App, docker: App, mappings: list[App] | None) -> App | None:
    kind = container.get("type", "DOCKER" if docker else "MESOS")
    normal: App = {
        **container,
        "type": kind,
        "volumes": sorted(container.get("volumes") or [], key=_sorted_by_text),
        "portMappings": [_without_names(_PORT_MAPPING | mapping) for mapping in mappings or [] if not _added(mapping)],
    }
    normal.pop("docker", None)
    if docker:
        defaults = {"privileged": False, "forcePullImage": False, "parameters": []}
        normal["docker"] = {**defaults, **{name: value for name, value in docker.items() if value is not None}}
    empty = not docker and not normal["volumes"] and not normal["portMappings"] and "appc" not in normal
    return None if empty else normal


def _added(mapping: App) -> bool:
    """Whether it is the mapping that Marathon gives an app without any since 1.5."""
    return mapping.get("name") == "default" and not mapping.get("containerPort")


def _without_names(mapping: App) -> App:
    """Without what is null, and the name that Marathon gives a port since 1.5."""
    return {name: value for name, value in mapping.items() if value not in (None, "default")}


def _ports(app: App) -> list[App] | None:
    """The ports on the host's network; None where the definition leaves them to Marathon."""
    definitions, ports = app.get("portDefinitions"), app.get("ports")
    if definitions or (definitions is not None and not ports):
        given = definitions
    elif ports is not None:
        given = [{"port": port} for port in ports]
    else:
        return None
    return [_without_names({"port": 0, "protocol": "tcp", "labels": {}, **definition}) for definition in given]


def _health_check(check: App) -> App:
    normal = {**_HEALTH_CHECK, **{name: value for name, value in check.items() if value is not None}}
    if "HTTP" not in normal["protocol"]:
        normal.pop("path")
    if "port" in check or normal["protocol"] == "COMMAND":
        normal.pop("portIndex")
    if isinstance(normal.get("command"), str):
        normal["command"] = {"value": normal["command"]}
    return normal


def _fetch(app: App) -> list[App]:
    if app.get("fetch"):
        return [{**_FETCH, **entry} for entry in app["fetch"]]
    return [{"uri": uri} for uri in app.get("uris") or []]


def _resolved(app: App) -> App:
    """An app's environment with its references to secrets resolved."""
    names = secrets.names_of_secrets(app)
    return {
        name: Secret(secrets.reveal(value))
        if secrets.is_reference(value, names) or isinstance(value, SecretReference)
        else value
        for name, value in (app.get("env") or {}).items()
    }


def _sorted_by_text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


# comparing it


def _compare(field: str, present: Any, wanted: Any) -> Iterator[Difference]:
    match present, wanted:
        case dict(), dict():
            yield from _compare_objects(field, present, wanted)
        case list(), list() if len(present) == len(wanted) and all(isinstance(item, dict) for item in wanted):
            for number, (have, want) in enumerate(_paired(field, present, wanted)):
                yield from _compare(f"{field}[{number}]", have, want)
        case str(), Secret() if Secret(present) != wanted:
            yield Difference(field, Secret(present), wanted)
        case str(), Secret():
            return
        case _ if present != wanted:
            yield Difference(field, present, wanted)


def _compare_objects(field: str, present: App, wanted: App) -> Iterator[Difference]:
    ours = present.keys() if field in ("env", "labels", "secrets") or field.endswith(".labels") else frozenset(wanted)
    for name in sorted(wanted.keys() | ours):
        have, want = present.get(name), wanted.get(name)
        if name in ("port", "servicePort") and want == 0:
            continue  # Marathon chose one
        if field == "env" and isinstance(have, str) and not isinstance(want, str | Secret):
            have = Secret(have)  # it may have been one
        yield from _compare(f"{field}.{name}", have, want)


def _paired(field: str, present: list[App], wanted: list[App]) -> Iterator[tuple[App, App]]:
    """Each wanted item beside the present one that it is compared with; health checks and volumes have no order."""
    if field not in ("healthChecks", "container.volumes"):
        yield from zip(present, wanted, strict=True)
        return
    left = list(present)
    for want in wanted:
        have = next((item for item in left if not list(_compare(field, item, want))), left[0])
        left.remove(have)
        yield have, want


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    return MASK if isinstance(value, Secret) else json.dumps(value, ensure_ascii=False, default=str)

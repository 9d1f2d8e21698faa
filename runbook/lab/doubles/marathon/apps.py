"""App definitions: what a request may say, what Marathon makes of it, and what counts as a change.

A definition is the JSON object that the API shows, with every default filled in and without what is counted (tasks,
deployments). Ids are absolute. Sources: AppDefinition.json of the REST API documentation, the formats and validations
of Marathon 1.1's `AppDefinition`, `AppUpdate` and `Container`.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

Json = dict[str, Any]
ID_SEGMENT = r"(([a-z0-9]|[a-z0-9][a-z0-9\-]*[a-z0-9])\.)*([a-z0-9]|[a-z0-9][a-z0-9\-]*[a-z0-9])"
OPERATORS = {"UNIQUE": 2, "CLUSTER": 2, "GROUP_BY": 2, "LIKE": 3, "UNLIKE": 3}  # with how many words at least

DEFAULTS: Json = {
    "cmd": None,
    "args": None,
    "user": None,
    "env": {},
    "instances": 1,
    "cpus": 1.0,
    "mem": 128.0,
    "disk": 0.0,
    "executor": "",
    "constraints": [],
    "uris": [],
    "fetch": [],
    "storeUrls": [],
    "ports": [0],
    "requirePorts": False,
    "backoffSeconds": 1,
    "backoffFactor": 1.15,
    "maxLaunchDelaySeconds": 3600,
    "container": None,
    "healthChecks": [],
    "readinessChecks": [],
    "dependencies": [],
    "upgradeStrategy": {"minimumHealthCapacity": 1.0, "maximumOverCapacity": 1.0},
    "labels": {},
    "acceptedResourceRoles": None,
    "ipAddress": None,
    "residency": None,
}
HEALTH_CHECK: Json = {
    "protocol": "HTTP",
    "gracePeriodSeconds": 300,
    "intervalSeconds": 60,
    "timeoutSeconds": 20,
    "maxConsecutiveFailures": 3,
    "ignoreHttp1xx": False,
}
READINESS_CHECK: Json = {
    "name": "readinessCheck",
    "protocol": "HTTP",
    "path": "/",
    "portName": "http-api",
    "intervalSeconds": 30,
    "timeoutSeconds": 10,
    "httpStatusCodesForReady": [200],
    "preserveLastResponse": False,
}
"""ReadinessCheck.scala. They are kept and shown; no deployment waits for them."""
DOCKER: Json = {"image": None, "privileged": False, "parameters": [], "forcePullImage": False}
FETCH: Json = {"extract": True, "executable": False, "cache": False}
ARCHIVES = (".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz", ".zip")  # FetchUri.scala
PORT_MAPPING: Json = {"containerPort": 0, "hostPort": 0, "servicePort": 0, "protocol": "tcp", "labels": {}}


class Refused(Exception):
    """A request that is answered with an error: its status and body."""

    def __init__(self, status: int, body: Json) -> None:
        super().__init__(body["message"])
        self.status = status
        self.body = body


def malformed(path: str, error: str) -> Refused:
    return Refused(400, {"message": "Invalid JSON", "details": [{"path": path, "errors": [error]}]})


def invalid(path: str, error: str) -> Refused:
    return Refused(422, {"message": "Object is not valid", "details": [{"path": path, "errors": [error]}]})


def unknown_app(app_id: str, version: str | None = None) -> Refused:
    return Refused(404, {"message": f"App '{app_id}' does not exist" + (f" in version {version}" if version else "")})


class Clock:
    """Versions: times in milliseconds, in UTC, none given out twice."""

    def __init__(self) -> None:
        self._last = datetime.fromtimestamp(0, UTC)

    def version(self) -> str:
        self._last = max(datetime.now(UTC), self._last + timedelta(milliseconds=1))
        return timestamp(self._last)


def timestamp(moment: datetime | None = None) -> str:
    """A time as Marathon writes it; the present without one."""
    return (moment or datetime.now(UTC)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def absolute(app_id: str) -> str:
    """An id as it stands in a URL or a definition, made absolute."""
    return "/" + app_id.strip("/")


def read(body: bytes, kind: type = dict) -> Any:
    """The JSON of a request; Refused (400) where it is none, or not of this kind."""
    if not body:
        raise Refused(400, {"message": "Please specify data in JSON format"})
    try:
        found = json.loads(body)
    except ValueError as error:
        raise Refused(400, {"message": "Invalid JSON", "details": str(error)}) from error
    if not isinstance(found, kind):
        raise malformed("", f"error.expected.js{'object' if kind is dict else 'array'}")
    return found


def updated(before: Json | None, app_id: str, update: Json, *, posted: bool = False) -> Json:
    """The definition that an update makes of the one `before` (None: of the defaults), without ports given out.

    Top-level fields replace those of before; what the update leaves out, or gives as null, stays. Of the `uris` of an
    app that is `posted` only archives are extracted, of one that is put all are (Formats.scala). Raises Refused.
    """
    given = {name: value for name, value in update.items() if value is not None}
    for name, value in given.items():
        if name in _FIELDS:
            _FIELDS[name](value, f"/{name}")
    app = {"id": app_id, **(before or DEFAULTS), **{name: value for name, value in given.items() if name in DEFAULTS}}
    app["readinessChecks"] = [_filled(READINESS_CHECK, check) for check in app.get("readinessChecks", [])]
    app["healthChecks"] = [_health_check(check) for check in app["healthChecks"]]
    app["upgradeStrategy"] = _filled(DEFAULTS["upgradeStrategy"], app["upgradeStrategy"])
    for older, newer, names in (("uris", "fetch", "uris and fetch fields"), ("ports", "portDefinitions", _BOTH_PORTS)):
        if older in given and newer in given:
            same = newer == "portDefinitions" and [one.get("port", 0) for one in given[newer]] == given[older]
            if not same:
                raise malformed("", f"You cannot specify both {names}")
    if "uris" in given:
        app["fetch"] = [{**FETCH, "uri": uri, "extract": not posted or uri.endswith(ARCHIVES)} for uri in app["uris"]]
    elif "fetch" in given:
        app["fetch"] = [_filled(FETCH, entry) for entry in given["fetch"]]
        app["uris"] = [entry["uri"] for entry in app["fetch"]]
    app["container"] = _container(app["container"])
    mappings = port_mappings(app)
    if "portDefinitions" in given:
        app["portDefinitions"] = [_port_definition(definition) for definition in given["portDefinitions"]]
    elif mappings is not None:
        app["portDefinitions"] = [_port_definition({"port": mapping["servicePort"]}) for mapping in mappings]
    elif "ports" in given or before is None or "container" in given:
        app["portDefinitions"] = [_port_definition({"port": port}) for port in app["ports"]]
    app["ports"] = [definition["port"] for definition in app["portDefinitions"]]
    _validate(app)
    return app


def give_ports(app: Json, before: Json | None, taken: Collection[int], first: int, last: int) -> None:
    """Give a service port to each port of 0: the one that it had before, else a free one."""
    had = before["ports"] if before else []
    free = (port for port in range(first, last + 1) if port not in taken and port not in had + app["ports"])
    for number, definition in enumerate(app["portDefinitions"]):
        if definition["port"] == 0:
            definition["port"] = had[number] if number < len(had) else next(free)
    app["ports"] = [definition["port"] for definition in app["portDefinitions"]]
    for mapping, port in zip(port_mappings(app) or [], app["ports"], strict=False):
        mapping["servicePort"] = port


def port_mappings(app: Json) -> list[Json] | None:
    """The port mappings of an app whose Docker container is on the bridge; None of any other."""
    docker = (app["container"] or {}).get("docker") or {}
    found: list[Json] | None = docker.get("portMappings") if docker.get("network") == "BRIDGE" else None
    return found


def is_scaled(before: Json, after: Json) -> bool:
    """Whether the number of instances differs."""
    return bool(before["instances"] != after["instances"])


def is_upgrade(before: Json, after: Json) -> bool:
    """Whether tasks must be replaced: anything but the number of instances differs."""
    ignored = {"instances", "version", "versionInfo"}
    return {k: v for k, v in before.items() if k not in ignored} != {k: v for k, v in after.items() if k not in ignored}


def config_version(app: Json) -> str:
    """Since when tasks are of this definition, scaling apart."""
    found: str = app["versionInfo"]["lastConfigChangeAt"]
    return found


def _filled(defaults: Json, given: Json) -> Json:
    """An object with its defaults, also in the place of what is null."""
    return {**defaults, **{name: value for name, value in given.items() if value is not None}}


def _health_check(given: Json) -> Json:
    """Of path, port index and port only what was given, but for the index of the first port without either."""
    check = _filled(HEALTH_CHECK, given)
    return check if check.get("port") is not None else {"portIndex": 0, **check}


def _port_definition(given: Json) -> Json:
    return _filled({"port": 0, "protocol": "tcp", "labels": {}}, given)


def _container(given: Json | None) -> Json | None:
    if given is None:
        return None
    container: Json = {"type": given.get("type") or "DOCKER", "volumes": given.get("volumes") or []}
    if (docker := given.get("docker")) is not None:
        container["docker"] = _filled(DOCKER, docker)
        if docker.get("portMappings") is not None:
            container["docker"]["portMappings"] = [_filled(PORT_MAPPING, mapping) for mapping in docker["portMappings"]]
    return container


def _validate(app: Json) -> None:
    if not re.fullmatch(rf"(/{ID_SEGMENT})+", app["id"]):
        raise invalid("/id", rf"must fully match regular expression '^{ID_SEGMENT}|(\.|\.\.)$'")
    container = app["container"]
    if bool(app["cmd"]) == bool(app["args"]) and (app["cmd"] or not container):
        raise invalid("/", "AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'.")
    if app["instances"] < 0:
        raise invalid("/instances", f"got {app['instances']}, expected 0 or more")
    for name in ("cpus", "mem", "disk"):
        if app[name] < 0:
            raise invalid(f"/{name}", f"got {float(app[name])}, expected 0.0 or more")
    for name in DEFAULTS["upgradeStrategy"]:
        value = app["upgradeStrategy"][name]
        if not 0 <= value <= 1:
            raise invalid(f"/upgradeStrategy/{name}", f"got {float(value)}, expected between 0.0 and 1.0")
    for number, constraint in enumerate(app["constraints"]):
        if len(constraint) < OPERATORS[constraint[1]]:
            raise invalid(f"/constraints({number})", "the rehearsal double needs a value here")
        if constraint[1] in ("LIKE", "UNLIKE"):
            try:
                re.compile(constraint[2])
            except re.error as error:
                raise invalid(f"/constraints({number})", f"is no regular expression: {error}") from error
    if container and container["type"] == "DOCKER" and not container.get("docker"):
        raise invalid("/container/docker", "must not be empty")
    if any("persistent" in volume or "external" in volume for volume in (container or {}).get("volumes", [])):
        raise invalid("/container/volumes", "the rehearsal double knows host volumes only")
    if app["ipAddress"] or app["residency"]:
        raise invalid("/", "the rehearsal double knows neither ipAddress nor residency")
    ports = port_mappings(app)
    for number, check in enumerate(app["healthChecks"]):
        if check["protocol"] not in ("HTTP", "TCP"):
            raise invalid(f"/healthChecks({number})/protocol", "the rehearsal double checks by HTTP and TCP only")
        if check.get("portIndex", -1) >= len(app["ports"] if ports is None else ports):
            raise invalid(
                f"/healthChecks({number})",
                "Health check port indices must address an element of the ports array or container port mappings.",
            )


_OPERATORS = "Constraint operator must be one of the following: [UNIQUE, LIKE, CLUSTER, GROUP_BY, UNLIKE]"
_BOTH_PORTS = "ports and port definitions"
Check = Callable[[Any, str], None]


def _number(value: Any, path: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise malformed(path, "error.expected.jsnumber")


def _whole(value: Any, path: str) -> None:
    _number(value, path)
    if not isinstance(value, int):
        raise malformed(path, "error.expected.int")


def _of(kind: type, name: str) -> Check:
    def check(value: Any, path: str) -> None:
        if not isinstance(value, kind):
            raise malformed(path, f"error.expected.js{name}")

    return check


_text, _truth, _map = _of(str, "string"), _of(bool, "boolean"), _of(dict, "object")


def _list(of: Check) -> Check:
    def check(value: Any, path: str) -> None:
        _of(list, "array")(value, path)
        for number, item in enumerate(value):
            of(item, f"{path}({number})")

    return check


def _command(value: Any, path: str) -> None:
    _text(value, path)
    if not value:
        raise malformed(path, "error.minLength")


def _constraint(value: Any, path: str) -> None:
    _list(_text)(value, path)
    if len(value) < 2 or value[1] not in OPERATORS:
        raise malformed(path, _OPERATORS)


def _texts(value: Any, path: str) -> None:
    _map(value, path)
    for name, item in value.items():
        _text(item, f"{path}/{name}")


def _object(*needed: str, **fields: Check) -> Check:
    def check(value: Any, path: str) -> None:
        _map(value, path)
        for name in needed:
            if value.get(name) is None:
                raise malformed(f"{path}/{name}", "error.path.missing")
        for name, item in value.items():
            if name in fields and item is not None:
                fields[name](item, f"{path}/{name}")

    return check


def _one_of(*names: str, what: str = "value") -> Check:
    def check(value: Any, path: str) -> None:
        _text(value, path)
        if value not in names:
            raise malformed(path, f"{value} is not a valid {what}")

    return check


_PORT = _object(port=_whole, protocol=_text, name=_text, labels=_texts)
_MAPPING = _object(containerPort=_whole, hostPort=_whole, servicePort=_whole, protocol=_text, name=_text)
_VOLUME = _object("containerPath", "mode", containerPath=_text, hostPath=_text, mode=_one_of("RO", "RW", what="mde"))
_CONTAINER = _object(
    type=_one_of("DOCKER", "MESOS"),
    volumes=_list(_VOLUME),
    docker=_object(
        "image",
        image=_text,
        network=_one_of("BRIDGE", "HOST", "NONE", "USER"),
        portMappings=_list(_MAPPING),
        privileged=_truth,
        parameters=_list(_object("key", "value", key=_text, value=_text)),
        forcePullImage=_truth,
    ),
)
_READINESS_CHECK = _object(
    name=_text,
    protocol=_one_of("HTTP", "HTTPS"),
    path=_text,
    portName=_text,
    intervalSeconds=_whole,
    timeoutSeconds=_whole,
    httpStatusCodesForReady=_list(_whole),
    preserveLastResponse=_truth,
)
_HEALTH_CHECK = _object(
    protocol=_one_of("HTTP", "HTTPS", "TCP", "COMMAND", what="protocol"),
    path=_text,
    **dict.fromkeys(
        ["port", "portIndex", "gracePeriodSeconds", "intervalSeconds", "timeoutSeconds", "maxConsecutiveFailures"],
        _whole,
    ),
)


def _each(names: Iterable[str], check: Check) -> dict[str, Check]:
    return dict.fromkeys(names, check)


_FIELDS: dict[str, Check] = {
    "cmd": _command,
    **_each(["id", "user", "executor", "version"], _text),
    **_each(["args", "uris", "storeUrls", "dependencies", "acceptedResourceRoles"], _list(_text)),
    **_each(["env", "labels"], _texts),
    **_each(["cpus", "mem", "disk", "backoffFactor"], _number),
    **_each(["instances", "backoffSeconds", "maxLaunchDelaySeconds"], _whole),
    **_each(["ipAddress", "residency"], _map),
    "ports": _list(_whole),
    "portDefinitions": _list(_PORT),
    "requirePorts": _truth,
    "constraints": _list(_constraint),
    "container": _CONTAINER,
    "fetch": _list(_object("uri", uri=_text)),
    "healthChecks": _list(_HEALTH_CHECK),
    "readinessChecks": _list(_READINESS_CHECK),
    "upgradeStrategy": _object(minimumHealthCapacity=_number, maximumOverCapacity=_number),
}

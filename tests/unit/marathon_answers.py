"""Answers of Marathon for unit tests, in the forms of domain-facts 3 and of its REST API documentation.

`in_11` and `in_15` make of a definition what Marathon 1.1.1 and 1.5 answer for it: with all defaults, ports that they
chose, and from 1.5 on with the fields of its networking API in place of `ports`, `uris` and what Docker containers had.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
VERSION = "2016-05-31T07:32:16.123Z"

# as Marathon 1.1.1's Jetty writes its errors
JETTY = """<html>
<head>
<meta http-equiv="Content-Type" content="text/html;charset=ISO-8859-1"/>
<title>Error {status} </title>
</head>
<body>
<h2>HTTP ERROR: {status}</h2>
<p>Problem accessing /v2/apps. Reason:
<pre>    {reason}</pre></p>
<hr /><a href="http://eclipse.org/jetty">Powered by Jetty:// 9.3.z-SNAPSHOT</a><hr/>
</body>
</html>
"""

LOCKED = {
    "message": "App is locked by one or more deployments. Override with the option '?force=true'. "
    "View details at '/v2/deployments/<DEPLOYMENT_ID>'.",
    "deployments": [{"id": "97c136bf-5a28-4821-9d94-480d9fbb01c8"}],
}

DEFAULTS: Json = {
    "cmd": None,
    "args": None,
    "user": None,
    "env": {},
    "instances": 1,
    "cpus": 1,
    "mem": 128,
    "disk": 0,
    "executor": "",
    "constraints": [],
    "storeUrls": [],
    "requirePorts": False,
    "backoffSeconds": 1,
    "backoffFactor": 1.15,
    "container": None,
    "healthChecks": [],
    "dependencies": [],
    "upgradeStrategy": {"minimumHealthCapacity": 1, "maximumOverCapacity": 1},
    "labels": {},
    "acceptedResourceRoles": None,
    "version": VERSION,
    "versionInfo": {"lastScalingAt": VERSION, "lastConfigChangeAt": VERSION},
    "tasksStaged": 0,
    "tasksRunning": 0,
    "tasksHealthy": 0,
    "tasksUnhealthy": 0,
    "deployments": [],
    "tasks": [],
}
HEALTH_CHECK: Json = {
    "protocol": "HTTP",
    "portIndex": 0,
    "gracePeriodSeconds": 300,
    "intervalSeconds": 60,
    "timeoutSeconds": 20,
    "maxConsecutiveFailures": 3,
    "ignoreHttp1xx": False,
}


def in_11(app: Json, **more: Any) -> Json:
    answered = {**DEFAULTS, "uris": [], "fetch": [], "maxLaunchDelaySeconds": 3600, "ipAddress": None, **app}
    answered["id"] = "/" + app["id"].lstrip("/")
    answered["healthChecks"] = [{**HEALTH_CHECK, "path": "/", **check} for check in app.get("healthChecks", ())]
    if "uris" in app:
        answered["fetch"] = [{"uri": uri, "extract": True, "executable": False, "cache": False} for uri in app["uris"]]
    given = app.get("ports", [definition["port"] for definition in app.get("portDefinitions", [{"port": 0}])])
    ports = [port or 10000 + number for number, port in enumerate(given)]
    if app.get("container"):
        docker = app["container"]["docker"]
        filled = {"network": None, "privileged": False, "parameters": [], "forcePullImage": False, **docker}
        if "portMappings" in docker:
            filled["portMappings"] = [
                {"containerPort": 0, "hostPort": 0, "protocol": "tcp", "labels": {}, **mapping, "servicePort": 10010}
                for mapping in docker["portMappings"]
            ]
            ports = [10010] * len(docker["portMappings"])
        answered["container"] = {"type": "DOCKER", "volumes": [], **app["container"], "docker": filled}
    answered["ports"] = ports
    answered["portDefinitions"] = [{"port": port, "protocol": "tcp", "labels": {}} for port in ports]
    return {**answered, **more}


def in_15(app: Json, **more: Any) -> Json:
    answered = {
        **{name: value for name, value in DEFAULTS.items() if value is not None and name != "storeUrls"},
        "maxLaunchDelaySeconds": 300,
        "killSelection": "YOUNGEST_FIRST",
        "unreachableStrategy": {"inactiveAfterSeconds": 0, "expungeAfterSeconds": 0},
        "networks": [{"mode": "host"}],
        **{name: value for name, value in app.items() if name not in ("ports", "uris")},
    }
    answered["id"] = "/" + app["id"].lstrip("/")
    answered["healthChecks"] = [
        {**HEALTH_CHECK, "delaySeconds": 15, **({} if check["protocol"] == "TCP" else {"path": "/"}), **check}
        for check in app.get("healthChecks", ())
    ]
    if "uris" in app:
        answered["fetch"] = [{"uri": uri, "extract": True, "executable": False, "cache": False} for uri in app["uris"]]
    mappings = None
    if app.get("container"):
        docker = dict(app["container"]["docker"])
        mappings = docker.pop("portMappings", None)
        if docker.pop("network", None) == "BRIDGE":
            answered["networks"] = [{"mode": "container/bridge"}]
        filled = {"privileged": False, "parameters": [], "forcePullImage": False, **docker}
        container = {"type": "DOCKER", "volumes": [], **app["container"], "docker": filled}
        if mappings is not None:
            container["portMappings"] = [
                {"hostPort": 0, "protocol": "tcp", "labels": {}, "name": "default", **mapping, "servicePort": 10010}
                for mapping in mappings
            ]
        answered["container"] = container
    if mappings is None:
        ports = [port or 10000 + number for number, port in enumerate(app.get("ports", [0]))]
        answered["portDefinitions"] = [{"port": port, "protocol": "tcp", "name": "default"} for port in ports]
    return {**answered, **more}


def task(number: int, *, app: str = "/hello", host: str = "node1", **more: Any) -> Json:
    """A task that runs."""
    return {
        "id": f"{app[1:]}.{number}",
        "appId": app,
        "host": host,
        "slaveId": f"S-{host}",
        "ports": [9000 + number],
        "servicePorts": [10000],
        "stagedAt": "2016-05-31T07:32:17.000Z",
        "startedAt": "2016-05-31T07:32:18.000Z",
        "version": VERSION,
        "ipAddresses": [{"ipAddress": "198.51.100.11", "protocol": "IPv4"}],
        **more,
    }

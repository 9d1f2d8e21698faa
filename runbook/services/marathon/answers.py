"""Whether an app's instances are all there, and answer at their hosts and ports (4.3): `curl 10.142.233.156:9007`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pandas as pd

from runbook.errors import ServiceError
from runbook.remote.checks import Evidence
from runbook.services.findings import Findings
from runbook.services.http import Endpoint, Timeouts
from runbook.services.marathon.apps import app_id
from runbook.services.marathon.deploy import marathon_of, slaves_of
from runbook.services.marathon.deployments import explain
from runbook.services.marathon.tables import is_instance
from runbook.site import Site
from runbook.wording import plural

PATIENCE = Timeouts(connect=2.0, read=3.0, whole=5.0)
LONGEST = 1 << 20
"""Bytes of an answer that are read."""
SHOWN = 300
"""Characters of an answer that are shown."""


def answered(site: Site, name: str, says: str) -> Evidence:
    """Whether as many instances of an app run as are wanted, and each answers over HTTP with `says`.

    Where some are missing, it says why, as far as Marathon and Mesos tell. Raises ServiceError where Marathon does not
    answer.
    """
    with marathon_of(site) as marathon:
        app = marathon.find(name)
        if app is None:
            return Evidence(False, f"there is no app {app_id(name)}", remedy="deploy it", tried=False)
        names = site.names
        answers = {_place(task, names): _answer(task, says) for task in app["tasks"] if is_instance(task)}
        missing = len(answers) < app["instances"]
        findings = explain(app, marathon.queue(), slaves_of(site)) if missing else Findings(name, ())
    silent = [place for place, said in answers.items() if says not in said]
    told = []
    if missing:
        told.append(f"{len(answers)} of {plural(app['instances'], 'instance')} run")
        told += [": ".join(filter(None, [one.host, one.cause, one.evidence])) for one in findings]
    if silent:
        told.append(f"{', '.join(silent)} did not answer '{says}'")
    elif answers:
        told.append(f"{', '.join(answers)} answered '{says}'")
    rows = [(place, f"{'✗' if place in silent else '✓'} {said}") for place, said in answers.items()]
    remedies = [one.remedy for one in findings] or ["see the task's output in its sandbox (Mesos' page), and its host"]
    return Evidence(
        not (missing or silent),
        "; ".join(told) or "no instance is wanted",
        pd.DataFrame(rows, columns=["host:port", "answer"]),
        "; ".join(dict.fromkeys(remedies)),
    )


def _port(task: Mapping[str, Any]) -> int | None:
    return next(iter(task.get("ports") or ()), None)


def _place(task: Mapping[str, Any], names: Mapping[str, str]) -> str:
    return f"{names.get(task['host'], task['host'])}:{_port(task) or task['id']}"


def _answer(task: Mapping[str, Any], says: str) -> str:
    """What a task answers, up to `says`, of which a long text's end is shown; else its beginning, or what is wrong."""
    if _port(task) is None:
        return "it has no port"
    heard = b""
    until = time.monotonic() + PATIENCE.whole
    with Endpoint(f"http://{task['host']}:{_port(task)}", timeouts=PATIENCE) as endpoint:
        try:
            with endpoint.download("/") as pieces:
                for piece in pieces:  # neither a loop around nc nor a stream need end its answer
                    heard += piece
                    if says.encode() in heard or len(heard) > LONGEST or time.monotonic() > until:
                        break
        except ServiceError as error:
            return error.message
    said = " ".join(heard.decode("utf-8", "replace").splitlines()).strip() or "(nothing)"
    if len(said) <= SHOWN:
        return said
    return f"…{said[-SHOWN:]}" if says in said else f"{said[:SHOWN]}…"

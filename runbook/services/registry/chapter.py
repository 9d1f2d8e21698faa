"""Chapter 7: the private registry, from the hosts' trust to an image that went there and back."""

from __future__ import annotations

import json
import re
from typing import NoReturn

import pandas as pd
from IPython.display import display

from runbook.chapter import Chapter, section
from runbook.errors import ApplyFailed, CheckFailed, NotFound, RunbookError, ServiceError
from runbook.events import emit
from runbook.remote.checks import CheckResult, Evidence
from runbook.remote.hosts import Hosts
from runbook.remote.modes import Mode, Status
from runbook.remote.probes import values
from runbook.remote.results import ApplyResult, StepResult
from runbook.remote.shell import quote
from runbook.remote.steps import STATE_DIR
from runbook.services.docker.daemon import SETTINGS
from runbook.services.docker.engine import PATIENCE
from runbook.services.docker.returned import Before, Tasks
from runbook.services.findings import Findings
from runbook.services.registry import diagnose, garbage, steps, transfer, trust
from runbook.services.registry.certificate import Certificate
from runbook.services.registry.client import Registry
from runbook.services.registry.garbage import Garbage
from runbook.services.registry.tables import Survey, layers_table, repositories_table, survey, tags_table
from runbook.services.registry.trust import Trust
from runbook.views.tables import Table, blank_missing
from runbook.wording import plural, size

DELETE = "delete-tag"
"""The gate before a tag is deleted, with all that share its digest."""
SHOWN = 500
"""Repositories that the chapter's tables show: each tag of each costs a request."""
HOST = "registry"
"""What stands for a host in rows about what the registry holds."""
UPLOAD_DEADLINE = 1800.0
"""Seconds in which the image must have arrived on the registry's host."""


class RegistryChapter(Chapter):
    """Chapter 7: the registry of a site, and its Docker hosts' trust in it.

    Raises ParameterError, before any host is touched, for a certificate that Docker would refuse.
    """

    number = "7"
    title = "Docker registry"
    needs = ("registry",)

    _seen: tuple[Survey, str] | None = None  # what the registry held when it was last asked

    def _examine(self) -> None:
        self.certificate = Certificate.of(self.site)
        steps.credentials(self.site)

    @property
    def members(self) -> Hosts:
        """The registry's host."""
        return self.hosts("registry")

    @property
    def dockers(self) -> Hosts:
        """The hosts that push to the registry and pull from it."""
        return self.hosts("docker")

    # 7.1

    @section("7.1", "The image, from its archive")
    def image(self) -> ApplyResult:
        """7.1: the registry's image by its explicit tag, from its archive. Raises ParameterError and ApplyFailed."""
        self.site.check_files({"registry"})
        return self._applied(
            lambda: self.members.apply(
                lambda _: (steps.image(self.site),), name="docker load", deadline=UPLOAD_DEADLINE
            )
        )

    # 7.2

    @section("7.2 present", "Whom Docker trusts")
    def trusts(self) -> Table:
        """7.2: whom each host's Docker trusts now: by its command line, by daemon.json, and by its own word."""
        return trust.table(self.site, self._trusts(), self._ca)

    @section("7.2", "Every Docker host trusts the registry")
    def trust(self) -> ApplyResult:
        """7.2: every host's Docker trusts the registry; where it must be restarted for that, one host at a time.

        A restart is behind the gate `restart-docker`, which lists the containers that it stops; the next host follows
        once Docker, its containers and Marathon's tasks are back. Raises ApplyFailed, CheckFailed and GateRefused.
        """
        found = self._trusts()
        before = Before.ask(self.site, found) if self.mode is Mode.APPLY else Before(found, Tasks())
        try:
            return self._applied(
                lambda: self.dockers.rolling(
                    lambda host: trust.steps(self.site, found[host.name], self.mode, self._ca),
                    until=lambda host: before.back(self.dockers, host),
                    name="trust in the registry",
                    patience=PATIENCE,
                )
            )
        except (ApplyFailed, CheckFailed) as error:
            self._explained(error)

    @section("7.2 trust", "Docker runs with the trust")
    def trusted(self) -> CheckResult:
        """7.2, check: every host's running Docker trusts the registry as the parameters say."""
        return self._check("every Docker host trusts the registry", self._trusted, deadline=20.0)

    # 7.3

    @section("7.3", "Run the registry")
    def run(self) -> ApplyResult:
        """7.3: the registry's container, with its files where it speaks TLS; another one is replaced behind the gate
        `recreate-container`, and what it holds is kept. Raises ApplyFailed and GateRefused."""
        return self._applied(
            lambda: self.members.apply(
                lambda _: steps.container_steps(self.site, self.certificate), name="docker run registry"
            )
        )

    # 7.4

    @section("7.4.1", "The container is up")
    def up(self) -> CheckResult:
        """7.4.1, check: the container runs, with the port and the folder of the parameters."""
        return self._check("the registry's container is up", self._up, deadline=30.0)

    @section("7.4.2", "The registry's log")
    def log(self, lines: int = 8) -> Table:
        """7.4.2: the last lines that the registry logged."""
        order = f"docker logs --tail {int(lines)} {quote(self.site.registry.container)}"
        script = f"! command -v docker >/dev/null || {order} 2>&1 | cut -c 1-300"
        rows = [
            (host, output.error.message if output.error else output.stdout.rstrip() or "nothing")
            for host, output in self.members.run(script).items()
        ]
        frame = pd.DataFrame(rows, columns=["host", "last lines"])
        return Table(frame, f"docker logs {self.site.registry.container}", literal=("last lines",))

    @section("7.4.3", "It answers")
    def answers(self) -> CheckResult:
        """7.4.3, check: the registry answers at /v2/, and takes the user and password of the parameters."""
        return self._check("the registry answers", self._answers, deadline=30.0)

    @section("7.4 reached", "Every Docker host reaches it")
    def reached(self) -> CheckResult:
        """7.4, check: every host's Docker reaches the registry and trusts it. Changes nothing."""
        return self._check(
            "every Docker host reaches the registry", lambda: transfer.reached(self.hosts()), deadline=30.0
        )

    @section("7.4.4", "An image goes there and back")
    def round_trip(self) -> CheckResult:
        """7.4.4 to 7.4.6, check: an image is tagged, pushed, removed, pulled back with the same digest, found on the
        registry's disk, and pulled on another host. In verify mode, that it is there and whole."""
        self._seen = None
        return self._check("an image goes there and back", lambda: transfer.round_trip(self.hosts()))

    @section("7.4.6 repositories", "The repositories")
    def repositories(self) -> Table:
        """7.4.6: the repositories, with how many tags each has, and how big and new they are; asked for anew."""
        self._seen = None
        found, told = self._survey()
        return Table(_readable(repositories_table(found)), told)

    @section("7.4.6 tags", "The tags")
    def tags(self) -> Table:
        """7.4.6: the tags, with digest, size, age, and which others go with each where it is deleted.

        Of what `repositories` found, as are `layers`, so that the three agree and the registry is asked once.
        """
        found, told = self._survey()
        frame = _readable(tags_table(found)).drop(columns=["media_type"])
        return Table(frame, f"{plural(len(frame), 'tag')} of {told}" if found.repositories else told)

    @section("7.4.6 layers", "The layers, and who shares them")
    def layers(self) -> Table:
        """7.4.6: the layers, the biggest first, and which images share each."""
        found, told = self._survey()
        return Table(_readable(layers_table(found)), f"layers of {told}" if found.repositories else told)

    # 7.5

    @section("7.5", "What keeps it from working")
    def findings(self) -> Findings:
        """7.5: what would keep a host from pushing or pulling, and people from deleting: which host, and the remedy."""
        return diagnose.diagnose(self.hosts())

    @section("7.5 garbage", "What could be freed")
    def garbage(self, untagged: bool = False) -> Garbage:
        """7.5: what a garbage collection would free, by the registry's dry run; nothing is changed.

        `untagged` counts manifests without a tag as well (from 2.7 on).
        """
        try:
            return garbage.dry_run(self.hosts(), untagged=untagged)
        except RunbookError as error:
            if self.mode is Mode.APPLY:
                raise
            return Garbage(refused=error.message, remedy=error.remedy or "")

    @section("7.5 collection", "Collect the garbage")
    def collect_garbage(self, untagged: bool = False) -> ApplyResult:
        """7.5: collect the garbage, behind the gate `collect-garbage`, which shows what goes.

        The registry is read-only meanwhile, and is proved by a pull afterwards. Raises StepFailed where it cannot
        collect, ApplyFailed, CheckFailed and GateRefused.
        """
        return garbage.collect(self.hosts(), untagged=untagged)

    def delete_tag(self, repository: str, tag: str) -> ApplyResult:
        """7.5: delete what a tag names, behind the gate `delete-tag`, which shows the tags that go with it.

        The registry deletes by digest, so that every tag of the repository with the same digest goes as well. The
        layers stay until garbage is collected. Raises DeleteDisabled, RegistryReadOnly and GateRefused.
        """
        with self.section("7.5 deletion", f"Delete {repository}:{tag}"), Registry.of(self.site) as registry:
            self._seen = None
            return self._deleted(registry, repository, tag)

    # the parts

    @property
    def _ca(self) -> bytes:
        return self.certificate.ca if self.certificate else b""

    def _trusts(self) -> dict[str, Trust]:
        return trust.of(self.dockers, self.site.registry_address or "")

    def _trusted(self) -> Evidence:
        found = self._trusts()
        judged = {host: trust.judged(self.site, one, self._ca) for host, one in found.items()}
        wrong = [f"{host}: {why}" for host, (good, why) in judged.items() if not good]
        table = trust.table(self.site, found, self._ca).frame
        text = (
            "; ".join(wrong)
            if wrong
            else f"{plural(len(judged), 'host trusts', 'hosts trust')} {self.site.registry_address}"
        )
        tried = any(one.installed for one in found.values())
        return Evidence(not wrong, text, table, "run 7.2 in mode apply" if wrong else None, tried=tried)

    def _up(self) -> Evidence:
        name = self.site.registry.container
        ((host, output),) = self.members.run(_INSPECT.format(name=quote(name))).items()
        if output.error is not None:
            raise output.error
        found = next(iter(map(json.loads, values(output.stdout, "container"))), None)
        if found is None:
            installed = "docker=yes" in output.stdout
            return Evidence(False, f"{host} has no container {name}", remedy="run 7.3", tried=installed)
        state, image = found["State"], found["Config"]["Image"]
        version = "".join(values(output.stdout, "version"))
        if match := re.search(r"v?(\d+\.\d+\.\d+\S*)", version):
            self.versions(host, {"registry": match[1]})
        ports = ", ".join(
            f"{binding['HostPort']}->{inside}"
            for inside, bindings in (found["HostConfig"].get("PortBindings") or {}).items()
            for binding in bindings or ()
        )
        row = (host, found["Id"][:12], image, state["Status"], state["StartedAt"][:19].replace("T", " "), ports)
        columns = ["host", "container", "image", "state", "started (UTC)", "ports"]
        table = pd.DataFrame([row], columns=columns)
        up = state["Running"] and not state.get("Restarting")
        text = f"{name} of {image} is {state['Status']} on {host}, {ports or 'without a port'}"
        return Evidence(up, text, table, None if up else "read its log in the cell below, then run 7.3")

    def _answers(self) -> Evidence:
        with Registry.of(self.site) as registry:
            registry.ping()
            user = f" and takes user {self.site.registry.user}" if self.site.registry.user else ""
            if user and not registry.asks_who:
                text = f"{registry.endpoint.url}/v2/ lets everybody in, without asking for a user"
                return Evidence(False, text, remedy="run 7.3: it gives the registry its htpasswd", hopeless=True)
            until = f", with a certificate until {self.certificate.until:%Y-%m-%d}" if self.certificate else ""
            return Evidence(True, f"{registry.endpoint.url}/v2/ answers{user}{until}")

    def _survey(self) -> tuple[Survey, str]:
        """What the first repositories hold, and how many they are; where no registry tells yet, nothing, and why."""
        if self._seen is None:
            try:
                with Registry.of(self.site) as registry:
                    names, after = registry.page(SHOWN)
                    count = plural(len(names), "repository", "repositories")
                    self._seen = survey(registry, names), f"the first {count}" if after else count
            except ServiceError as error:
                if self.mode is Mode.APPLY:
                    raise
                return Survey((), (), 0.0), f"not known: {error.message}"
        return self._seen

    def _deleted(self, registry: Registry, repository: str, tag: str) -> ApplyResult:
        label = f"tag {repository}:{tag}"

        def told(status: Status, summary: str = "", diff: str = "") -> ApplyResult:
            row = StepResult(HOST, label, status, summary, diff)
            emit(event="step", **row.row())
            return ApplyResult("delete a tag", self.mode, (row,))

        try:
            digest = registry.digest(repository, tag)
        except NotFound:
            return told(Status.OK, "it is not there")
        going = registry.tags_of(repository, digest)
        diff = "".join(f"-{repository}:{one} {digest}\n" for one in going)
        summary = f"delete {', '.join(going)}"
        if self.mode is not Mode.APPLY:
            return told(Status.WOULD_CHANGE, summary, diff)
        others = [one for one in going if one != tag]
        more = f", and with it {', '.join(others)}, of the same digest" if others else ""
        within = registry.indexes_of(repository, digest)
        if within:
            lists, broken = ("lists", "is") if len(within) == 1 else ("list", "are")
            more += f"; {', '.join(within)} {lists} it as an image of a platform, and {broken} broken then"
        evidence = pd.DataFrame([(repository, one, digest) for one in going], columns=["repository", "tag", "digest"])
        question = f"{repository}:{tag} is deleted{more}; hosts that have pulled it keep it"
        self.hosts().approval.ask(DELETE, question, evidence)
        now = (
            registry.digest(repository, tag),
            registry.tags_of(repository, digest),
            registry.indexes_of(repository, digest),
        )
        if now != (digest, going, within):
            raise CheckFailed(
                f"somebody changed the tags of {repository} while the question stood: nothing was deleted",
                "look at what is there now, then run again",
            )
        registry.delete(repository, digest)
        left = registry.tags_of(repository, digest)
        return told(Status.FAILED if left else Status.CHANGED, f"still there: {left}" if left else summary, diff)

    def _explained(self, error: ApplyFailed | CheckFailed) -> NoReturn:
        """Raise the error again; where Docker did not come back, with its last lines and the place of its backups."""
        failed: tuple[str, ...] = ()
        if isinstance(error, ApplyFailed) and isinstance(error.result, ApplyResult):
            failed = tuple(one.host for one in error.result.having(Status.FAILED) if one.step == "service docker")
        if not failed:
            raise error
        told = []
        for host, output in self.dockers.only(*failed).run(_JOURNAL).items():
            told.append(f"{host}: {output.error.message if output.error else output.stdout.strip()}")
        backup = f"{STATE_DIR}/backup/{self.hosts().record}"
        display(Table(pd.DataFrame(told, columns=["Docker's last lines"]), literal=("Docker's last lines",)))
        raise type(error)(
            "\n".join([error.message, *told]),
            f"mend what it complains of, or put back what was there before: {backup}{SETTINGS} and "
            f"{backup}{trust.DROPIN} on that host, where they exist; then systemctl daemon-reload, and restart docker",
            result=error.result,
        ) from error


_JOURNAL = "journalctl -q -o cat --no-pager -n 12 -u docker | cut -c 1-400"
_INSPECT = """\
command -v docker >/dev/null 2>&1 || exit 0
echo docker=yes
c=$(docker inspect --type container -f '{{{{json .}}}}' {name} 2>/dev/null) || exit 0
echo "container=$c"
echo "version=$(docker exec {name} registry --version 2>/dev/null | head -n 1)"
"""


def _readable(frame: pd.DataFrame) -> pd.DataFrame:
    """A table of what the registry holds as people read it: sizes in their units, ages in days or hours."""
    shown = frame.copy()
    if "size" in shown:
        shown["size"] = [size(int(one)) if pd.notna(one) else "" for one in shown["size"]]
    if "age" in shown:
        shown["age"] = [_age(one) if pd.notna(one) else "" for one in shown["age"]]
    for column in ("newest", "created"):
        if column in shown:
            shown[column] = shown[column].dt.strftime("%Y-%m-%d %H:%M").fillna("")
    return blank_missing(shown) if len(shown) else shown


def _age(span: pd.Timedelta) -> str:
    hours = int(span.total_seconds() // 3600)
    return f"{hours // 24} days" if hours >= 48 else f"{hours} hours"

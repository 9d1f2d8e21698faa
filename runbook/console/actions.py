"""What the console can do to a registry: delete an image, give it a tag, collect garbage.

Each is a step of the record, as what is done to a host is: it looks, says what would become of it, asks at its gate,
looks again whether that is still so, acts, and counts as done only where the registry shows it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol

import pandas as pd

from runbook.errors import NotFound, StepFailed
from runbook.events import emit
from runbook.remote.gates import Approval
from runbook.remote.modes import Mode, Status
from runbook.remote.results import StepResult
from runbook.remote.steps import before_after

if TYPE_CHECKING:
    from runbook.remote.hosts import Hosts
    from runbook.services.registry import Manifest, Registry

HOST = "registry"
"""What stands for a host in the rows of the record."""


@dataclass(frozen=True)
class Tools:
    """What an action works with: a client of the registry, the site's hosts over SSH, the mode, who opens gates, and
    the right to change the site."""

    registry: Registry
    hosts: Callable[[], Hosts]
    mode: Mode
    approval: Approval
    alone: Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Done:
    """How an action ended, and the table that shows what it is about, if there is one."""

    result: StepResult
    evidence: pd.DataFrame | None = None


class Action(Protocol):
    """What a button of the console starts."""

    @property
    def title(self) -> str:
        """What it is called in the record and in the console's list, as an order: `delete web/shop:1.2`."""

    def run(self, tools: Tools) -> Done:
        """Do it, or in plan mode tell what it would do. Raises GateRefused, and the errors of what it asks."""


@dataclass(frozen=True)
class Delete:
    """Delete the image that a tag or digest names, and with it every tag that names it.

    The API deletes by digest only ('Deleting an Image'), so other tags of the same image go, too, and indexes that list
    it break: the gate says which.
    """

    repository: str
    reference: str

    GATE: ClassVar = "delete-tag"

    @property
    def title(self) -> str:
        return f"delete {shown(self.repository, self.reference)}"

    def run(self, tools: Tools) -> Done:
        step, registry = _Step(self.title), tools.registry
        manifest = registry.manifest(self.repository, self.reference)
        tags = tuple(registry.tags_of(self.repository, manifest.digest))
        indexes = tuple(registry.indexes_of(self.repository, manifest.digest))
        others = [tag for tag in tags if tag != self.reference]
        costs = self._costs(others, indexes)
        diff = before_after(dict.fromkeys(tags or (self.reference,), (manifest.digest, "deleted")))
        evidence = self._evidence(manifest, tags, indexes)
        if tools.mode is not Mode.APPLY:
            return Done(step.ends(Status.WOULD_CHANGE, costs, diff), evidence)
        tools.approval.ask(self.GATE, f"Delete {shown(self.repository, self.reference)}? {costs}".rstrip(), evidence)
        with tools.alone():
            if self._differs(registry, manifest, tags, indexes):
                raise _changed_meanwhile(self.title)
            registry.delete(self.repository, manifest.digest)
            left = self._left(registry, manifest, tags)
        if left:
            raise StepFailed(
                f"{self.title}: the registry says that it is done, and still has {', '.join(left)}",
                "look again: somebody may have pushed it meanwhile; else read the registry's log",
            )
        return Done(step.ends(Status.CHANGED, costs, diff))

    def _costs(self, others: Sequence[str], indexes: Sequence[str]) -> str:
        """What else goes, in words; nothing where nothing does."""
        told = []
        if others:
            verb = "names the same image and goes" if len(others) == 1 else "name the same image and go"
            told.append(f"{', '.join(others)} {verb}, too.")
        if indexes:
            verb = "lists it and breaks" if len(indexes) == 1 else "list it and break"
            told.append(f"{', '.join(indexes)} {verb} for its platform.")
        return " ".join(told)

    def _evidence(self, manifest: Manifest, tags: Sequence[str], indexes: Sequence[str]) -> pd.DataFrame:
        goes = [(f"{self.repository}:{tag}", "deleted", manifest.digest, manifest.total) for tag in tags]
        if not tags:
            goes = [(shown(self.repository, manifest.digest), "deleted", manifest.digest, manifest.total)]
        breaks = [(f"{self.repository}:{tag}", "broken for a platform", "", None) for tag in indexes]
        frame = pd.DataFrame([*goes, *breaks], columns=["tag", "becomes", "digest", "bytes"])
        return frame.astype({"bytes": "Int64"})  # none of an index: the manifest does not tell

    def _differs(self, registry: Registry, manifest: Manifest, tags: tuple[str, ...], indexes: tuple[str, ...]) -> bool:
        return (
            registry.digest(self.repository, self.reference) != manifest.digest
            or tuple(registry.tags_of(self.repository, manifest.digest)) != tags
            or tuple(registry.indexes_of(self.repository, manifest.digest)) != indexes
        )

    def _left(self, registry: Registry, manifest: Manifest, tags: tuple[str, ...]) -> list[str]:
        left: list[str] = []
        with suppress(NotFound):  # with its last tag a repository may go as well
            left += [tag for tag in registry.tags(self.repository) if tag in tags]
        with suppress(NotFound):
            left.append(registry.digest(self.repository, manifest.digest))
        return left


@dataclass(frozen=True)
class Retag:
    """Give the image that a tag or digest names another tag, in its own repository or in another one (promotion).

    Nothing is pulled: the manifest is put under the new name, and its layers are mounted.
    """

    repository: str
    reference: str
    to: str
    tag: str

    GATE: ClassVar = "retag"

    @property
    def title(self) -> str:
        return f"tag {shown(self.repository, self.reference)} as {self.target}"

    @property
    def target(self) -> str:
        """The new name."""
        return shown(self.to, self.tag)

    def run(self, tools: Tools) -> Done:
        step, registry = _Step(self.title), tools.registry
        digest = registry.digest(self.repository, self.reference)
        present = self._present(registry)
        if present == digest:
            return Done(step.ends(Status.OK, "it is already"))
        diff = before_after({self.target: (present or "not there", digest)})
        summary = f"it named {present}" if present else ""
        evidence = self._evidence(digest, present)
        if tools.mode is not Mode.APPLY:
            return Done(step.ends(Status.WOULD_CHANGE, summary, diff), evidence)
        tools.approval.ask(self.GATE, self._question(present), evidence)
        with tools.alone():
            if registry.digest(self.repository, self.reference) != digest or self._present(registry) != present:
                raise _changed_meanwhile(self.title)
            registry.retag(self.repository, digest, self.tag, to=None if self.to == self.repository else self.to)
            found = self._present(registry)
        if found != digest:
            raise StepFailed(
                f"{self.title}: the registry says that it is done, and {self.target} names {found or 'nothing'}",
                "look again: somebody may have pushed it meanwhile; else read the registry's log",
            )
        return Done(step.ends(Status.CHANGED, summary, diff))

    def _present(self, registry: Registry) -> str | None:
        try:
            return registry.digest(self.to, self.tag)
        except NotFound:
            return None

    def _question(self, present: str | None) -> str:
        what = f"Tag {shown(self.repository, self.reference)} as {self.target}?"
        if present is None:
            return f"{what} It is a new tag."
        return f"{what} It names another image at present, and would name that one no more."

    def _evidence(self, digest: str, present: str | None) -> pd.DataFrame:
        return pd.DataFrame([(self.target, present or "not there", digest)], columns=["tag", "names", "would name"])


@dataclass(frozen=True)
class Collect:
    """Collect garbage: free what no manifest needs any more. A dry run comes first, and its gate shows what would go.

    `untagged`: images that no tag names count as garbage, too, as a tag leaves one behind that was pushed anew.
    `services.registry.garbage` does it and tells its steps; its own row of them is how this ends. The site's lock is
    held from the dry run on, so that nothing of ours pushes what the gate shows as garbage.
    """

    untagged: bool = False

    @property
    def title(self) -> str:
        return f"collect garbage{', images without a tag included' if self.untagged else ''}"

    def run(self, tools: Tools) -> Done:
        from runbook.services.registry import garbage  # SSH: nothing that a page should wait for when it opens

        hosts = tools.hosts()
        with tools.alone() if tools.mode is Mode.APPLY else nullcontext():
            result = garbage.collect(hosts, untagged=self.untagged)
        label = garbage.Collection(hosts.site.registry.container).label
        return Done(next(one for one in result if one.step == label))


def shown(repository: str, reference: str) -> str:
    """A reference as Docker writes it: `web/shop:1.2`, `web/shop@sha256:…`."""
    return f"{repository}{'@' if ':' in reference else ':'}{reference}"


def refused(title: str) -> Done:
    """How an action ends that stopped at its gate."""
    return Done(_Step(title).ends(Status.SKIPPED, "refused at its gate: nothing was done"))


@dataclass
class _Step:
    """One row of the record that comes to be."""

    title: str
    began: float = field(default_factory=time.monotonic)

    def ends(self, status: Status, summary: str = "", diff: str = "") -> StepResult:
        result = StepResult(HOST, self.title, status, summary, diff, time.monotonic() - self.began)
        emit(event="step", **result.row())
        return result


def _changed_meanwhile(title: str) -> StepFailed:
    return StepFailed(
        f"{title}: somebody changed these tags while the question stood: nothing was done",
        "look at what is there now, and decide again",
    )

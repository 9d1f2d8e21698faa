"""Chapter 7 without hosts: what is refused when it opens, deletions with all that goes, and what a restart ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pandas as pd
import pytest
from certificates import Authority, write
from fake_registry import FakeRegistry
from registry_site import ZERO, site

from runbook.chapter import Chapter
from runbook.errors import CheckFailed, EndpointUnreachable, GateRefused, ManifestUnknown, ParameterError
from runbook.events import subscribe
from runbook.remote.hosts import Output
from runbook.remote.modes import Mode, Status
from runbook.services.registry import transfer
from runbook.services.registry.chapter import RegistryChapter, _readable
from runbook.services.registry.client import Registry
from runbook.services.registry.manifests import Descriptor, ImageConfig, Manifest

DIGEST, OTHER = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"


@pytest.fixture
def parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The parameter file of a site with a registry; records go below the test's folder."""
    (tmp_path / "outputs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RUNBOOK_RECORD", raising=False)
    file = tmp_path / "site.yml"
    file.write_text(text())
    yield file
    if Chapter._open is not None:
        Chapter._open.close()


def text(registry: str = "") -> str:
    return (
        "name: test\nhosts:\n  - {name: node1, address: 198.51.100.11, roles: [docker, registry]}\n"
        f"registry: {{image: registry{registry}}}\n"
        f'images:\n  registry: {{tag: "registry:2.3.0", file: registry.tar, sha256: "{ZERO}"}}\n'
    )


# opening


TLS = ", security: tls, tls: {certificate: c.pem, key: k.pem, ca: ca.pem}"


def test_a_certificate_that_docker_would_refuse_is_refused_when_the_chapter_opens(parameters: Path) -> None:
    authority = Authority()
    write(parameters.parent, *authority.sign("198.51.100.99"), authority.pem)
    parameters.write_text(text(TLS))
    with pytest.raises(ParameterError, match=r"is for 198\.51\.100\.99"):
        RegistryChapter(parameters)
    assert Chapter._open is None
    write(parameters.parent, *authority.sign("198.51.100.11"), authority.pem)
    chapter = RegistryChapter(parameters)
    assert chapter.certificate is not None
    assert chapter._ca == authority.pem


def test_a_registry_that_lets_everybody_in_takes_no_user(parameters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority()
    write(parameters.parent, *authority.sign("198.51.100.11"), authority.pem)
    monkeypatch.setenv("TEST_REGISTRY_PASSWORD", "correct horse")
    parameters.write_text(text(f"{TLS}, user: operator, password: 'env:TEST_REGISTRY_PASSWORD'"))
    chapter = RegistryChapter(parameters, mode="apply")
    asks = False

    def ping(registry: Registry) -> None:
        registry._auth._basic = asks

    monkeypatch.setattr(Registry, "ping", ping)
    with pytest.raises(CheckFailed, match="lets everybody in, without asking for a user"):
        chapter.answers()
    asks = True
    assert "answers and takes user operator" in chapter.answers().evidence.text


# deleting a tag


class Held:
    """Stands for a registry with one repository."""

    def __init__(self, **tags: str) -> None:
        self.held = tags
        self.deleted: list[str] = []

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None: ...

    def digest(self, repository: str, tag: str) -> str:
        if tag not in self.held:
            raise ManifestUnknown(f"{repository} has no {tag}")
        return self.held[tag]

    def tags_of(self, repository: str, digest: str) -> list[str]:
        return [tag for tag, held in self.held.items() if held == digest]

    def tags(self, repository: str) -> list[str]:
        return list(self.held)

    def indexes_of(self, repository: str, digest: str) -> list[str]:
        return [tag for tag in self.held if tag == "index" and digest == DIGEST]

    def delete(self, repository: str, digest: str) -> None:
        self.deleted.append(digest)
        self.held = {tag: held for tag, held in self.held.items() if held != digest}


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    registry = Held(one=DIGEST, same=DIGEST, other=OTHER)
    monkeypatch.setattr(Registry, "of", lambda _: registry)
    return registry


def test_a_deletion_says_which_tags_go_with_it(parameters: Path, held: Held) -> None:
    told: list[dict[str, object]] = []
    end = subscribe(told.append)
    try:
        result = RegistryChapter(parameters, mode="apply", yes=True).delete_tag("lab/userland", "one")
    finally:
        end()
    (row,) = result.results
    assert (row.host, row.step, row.status) == ("registry", "tag lab/userland:one", Status.CHANGED)
    assert row.diff == f"-lab/userland:one {DIGEST}\n-lab/userland:same {DIGEST}\n"
    (gate,) = (event for event in told if event["event"] == "gate")
    assert gate["name"] == "delete-tag"
    assert "and with it same, of the same digest" in str(gate["question"])
    assert list(held.held) == ["other"]


def test_an_index_that_lists_the_image_is_named(parameters: Path, held: Held) -> None:
    held.held["index"] = f"sha256:{'c' * 64}"
    with pytest.raises(GateRefused, match="; index lists it as an image of a platform, and is broken then"):
        RegistryChapter(parameters, mode="apply").delete_tag("lab/userland", "one")
    held.indexes_of = lambda *_: ["a", "b"]  # type: ignore[method-assign]
    with pytest.raises(GateRefused, match="; a, b list it as an image of a platform, and are broken then"):
        RegistryChapter(parameters, mode="apply").delete_tag("lab/userland", "one")


def test_a_gate_that_stays_shut_deletes_nothing(parameters: Path, held: Held) -> None:
    with pytest.raises(GateRefused, match="same"):
        RegistryChapter(parameters, mode="apply").delete_tag("lab/userland", "one")
    assert held.deleted == []


@pytest.mark.parametrize("pushed", [{"canary": DIGEST}, {"one": OTHER}, {"index": f"sha256:{'c' * 64}"}])
def test_what_was_pushed_while_the_question_stood_is_not_deleted(
    parameters: Path, held: Held, pushed: dict[str, str]
) -> None:
    chapter = RegistryChapter(parameters, mode="apply", yes=True)
    end = subscribe(lambda event: held.held.update(pushed) if event["event"] == "gate" else None)
    try:
        with pytest.raises(CheckFailed, match="nothing was deleted"):
            chapter.delete_tag("lab/userland", "one")
    finally:
        end()
    assert held.deleted == []


@pytest.mark.parametrize("mode", ["plan", "verify"])
def test_without_apply_a_deletion_is_only_told(parameters: Path, held: Held, mode: str) -> None:
    (row,) = RegistryChapter(parameters, mode=mode).delete_tag("lab/userland", "one").results
    assert (row.status, row.summary) == (Status.WOULD_CHANGE, "delete one, same")
    assert held.deleted == []


def test_a_tag_that_is_gone_is_gone(parameters: Path, held: Held) -> None:
    (row,) = RegistryChapter(parameters, mode="apply").delete_tag("lab/userland", "none").results
    assert (row.status, row.summary) == (Status.OK, "it is not there")


# what is shown


def test_sizes_and_ages_are_told_in_their_units() -> None:
    frame = pd.DataFrame(
        {
            "size": pd.array([1_500_000, None], dtype="Int64"),
            "age": pd.to_timedelta([3 * 86400, None], unit="s"),
            "created": pd.to_datetime(["2026-11-25T01:02:03Z", None]),
        }
    )
    shown = _readable(frame)
    assert list(shown["size"]) == ["1.5 MB", ""]
    assert list(shown["age"]) == ["3 days", ""]
    assert list(shown["created"]) == ["2026-11-25 01:02", ""]


@pytest.mark.parametrize("mode", ["plan", "verify"])
def test_a_registry_that_does_not_tell_is_not_shown_as_an_empty_one(
    parameters: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    def page(*_: object) -> NoReturn:
        raise EndpointUnreachable("http://198.51.100.11:8600/v2/_catalog: Connection refused")

    monkeypatch.setattr(Registry, "page", page)
    chapter = RegistryChapter(parameters, mode=mode)
    for table in (chapter.repositories(), chapter.tags(), chapter.layers()):
        assert table.caption == "not known: http://198.51.100.11:8600/v2/_catalog: Connection refused"
        assert table.frame.empty


@pytest.mark.parametrize(("after", "caption"), [(None, "1 repository"), ("a", "the first 1 repository")])
def test_the_tables_say_how_many_repositories_they_are_of(
    parameters: Path, monkeypatch: pytest.MonkeyPatch, after: str | None, caption: str
) -> None:
    monkeypatch.setattr(Registry, "page", lambda *_: (["a"], after))
    monkeypatch.setattr(Registry, "tags", lambda *_: [])
    chapter = RegistryChapter(parameters)
    shown = [table.caption for table in (chapter.repositories(), chapter.tags(), chapter.layers())]
    assert shown == [caption, f"0 tags of {caption}", f"layers of {caption}"]


def test_the_three_tables_are_of_one_look_at_the_registry(
    parameters: Path, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def page(_: Held, size: int) -> tuple[list[str], str | None]:
        asked.append("page")
        return [], None

    monkeypatch.setattr(Held, "page", page, raising=False)
    monkeypatch.setattr(Held, "each", lambda _, function, items: list(map(function, items)), raising=False)
    chapter = RegistryChapter(parameters, mode="apply", yes=True)
    chapter.repositories(), chapter.tags(), chapter.layers()
    assert asked == ["page"]
    chapter.repositories()  # somebody runs the cell again
    assert asked == ["page"] * 2
    chapter.delete_tag("lab/userland", "other")
    chapter.tags()
    assert asked == ["page"] * 3


# an image for the round trip


def test_the_userland_makes_the_round_trip_or_else_the_smallest_archive(tmp_path: Path) -> None:
    more = f'  big: {{tag: "big:1", file: big.tar, sha256: "{ZERO}"}}\n'
    more += f'  small: {{tag: "small:1", file: s.tar, sha256: "{ZERO}"}}\n'
    for name, size in (("big.tar", 9), ("s.tar", 2), ("registry.tar", 5)):
        (tmp_path / name).write_bytes(b"x" * size)
    assert transfer.subject(site(images=more, folder=tmp_path)) == "small:1"
    more += f'  userland: {{tag: "lab/userland:1", file: big.tar, sha256: "{ZERO}"}}\n'
    assert transfer.subject(site(images=more, folder=tmp_path)) == "lab/userland:1"


# an image for the pull after a collection


def chosen(registry: FakeRegistry) -> str | None:
    found = transfer._smallest(registry)  # type: ignore[arg-type]
    return found and f"{found[0].repository}:{found[1]}"


def test_the_smallest_image_is_pulled_wherever_it_is_behind_emptied_repositories() -> None:
    registry = FakeRegistry(f"a/emptied-{number}" for number in range(50))
    assert chosen(registry) is None
    registry.push("b/big", "1", "a layer of much content")
    registry.push("b/small", "1", "layer")
    registry.push_index("b/small", "0", "1")
    registry.push("c/small", "1", "layer", "and another")
    registry.push("d/small", "1", "layer")
    assert chosen(registry) == "d/small:1"  # neither the index, nor the image that stands behind it


def test_what_is_no_image_is_not_pulled(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = FakeRegistry()
    registry.push("a/chart", "1", "")
    monkeypatch.setattr(registry, "image", lambda *_: ImageConfig())
    assert chosen(registry) is None


def test_where_every_image_is_lost_that_is_told_and_not_an_empty_registry() -> None:
    registry = FakeRegistry()
    for name in ("a", "b"):
        registry.push(name, "1", "layer")

    def lost(question: str) -> None:
        if question == "manifest":
            raise ManifestUnknown("MANIFEST_UNKNOWN: manifest unknown")

    registry.before = lost
    with pytest.raises(ManifestUnknown):
        chosen(registry)


def test_an_image_that_is_not_whole_on_the_disk_is_not_vouched_for_by_a_pull(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hosts:
        site = site()

    class Entered(FakeRegistry):
        def __enter__(self) -> Entered:
            return self

        def __exit__(self, *_: object) -> None: ...

    registry = Entered()
    registry.push("a", "1", "layer")
    monkeypatch.setattr(Registry, "of", lambda _: registry)
    monkeypatch.setattr(transfer, "on_disk", lambda *_: [(("on disk", "node1", "✗ damaged: abc"), False)])
    found = transfer.pulled(Hosts())  # type: ignore[arg-type]
    assert (found.holds, found.text) == (False, "a:1: ✗ damaged: abc")


def test_a_plan_pushes_nothing() -> None:
    class Hosts:
        mode = Mode.PLAN

    evidence = transfer.round_trip(Hosts())  # type: ignore[arg-type]
    assert (evidence.holds, evidence.tried) == (False, False)


# names that mean another image


class Here:
    """Stands for the registry's host, whose Docker has these images by name."""

    site = site()

    def __init__(self, image: str, name: str) -> None:
        self.printed = f"image={image}\nname={name}\n"

    def run(self, script: str) -> dict[str, Output]:
        return {"node1": Output(self.printed, "", 0)}


@pytest.mark.parametrize(
    ("image", "name", "held", "taken"),
    [
        (DIGEST, "", None, ""),
        (DIGEST, DIGEST, None, ""),
        (DIGEST, OTHER, None, "node1:5000/a:1 is another image than lab/userland:1 on node1"),
        (DIGEST, "", DIGEST, ""),
        (DIGEST, "", OTHER, "the registry has another image under a:1 than lab/userland:1 is on node1"),
        ("", "", OTHER, ""),  # the push will say that there is no such image
    ],
)
def test_no_name_is_taken_from_another_image(
    monkeypatch: pytest.MonkeyPatch, image: str, name: str, held: str | None, taken: str
) -> None:
    class Named(Held):
        def manifest(self, repository: str, reference: str) -> Manifest:
            if held is None:
                raise ManifestUnknown("no such tag")
            return Manifest(repository, "", ZERO, b"", Descriptor("", held, 1))

    monkeypatch.setattr(Registry, "of", lambda _: Named())
    found = transfer._taken(Here(image, name), "lab/userland:1", "node1:5000/a:1", "a", "1")  # type: ignore[arg-type]
    assert found == taken

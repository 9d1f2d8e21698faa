"""The registry's console, at a registry of ten thousand repositories: what it asks, shows, does and records."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ipywidgets
import pandas as pd
import pytest
from fake_registry import FakeRegistry, digest_of

from runbook import events
from runbook.chapter import Chapter
from runbook.console import RegistryConsole
from runbook.console import page as page_module
from runbook.console.index import Found, Query, newest_first
from runbook.console.page import Page
from runbook.console.workers import Turn, Worker
from runbook.errors import DeleteDisabled, EndpointUnreachable, LockHeld, ParameterError
from runbook.outcomes import Outcome
from runbook.remote.hosts import Hosts
from runbook.remote.modes import Mode, Status
from runbook.remote.results import ApplyResult, StepResult
from runbook.rollout import journal, record
from runbook.rollout.journal import Entry
from runbook.rollout.lock import Holder, SiteLock
from runbook.services.registry import Registry, garbage
from runbook.site import Site

SITE = """\
name: console-test
hosts:
  - name: node1
    address: 127.0.0.1
    roles: [zookeeper, docker, registry]
zookeeper: {allow_even: true, client_port: 9}
images:
  registry: {tag: "registry:2.8.2", file: registry.tar, sha256: "%s"}
""" % ("0" * 64)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(record.VARIABLE, raising=False)
    monkeypatch.setattr(page_module, "DEBOUNCE", 0.02)
    path = tmp_path / "site.yml"
    path.write_text(SITE)
    return path


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> FakeRegistry:
    fake = FakeRegistry()
    monkeypatch.setattr(Registry, "of", lambda site, **_: fake)
    return fake


Open = Callable[..., RegistryConsole]


@pytest.fixture
def open_console(site: Path, registry: FakeRegistry) -> Iterator[Open]:
    def open_(mode: str = "apply") -> RegistryConsole:
        return RegistryConsole(site, mode=mode)

    yield open_
    if Chapter._open is not None:
        Chapter._open.close()


def shown(console: RegistryConsole) -> Page:
    """The page of a console, once all is read."""
    console.show()
    page = console._page
    assert page is not None
    assert page.settle()
    return page


def until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def widgets(root: Any) -> Iterator[Any]:
    yield root
    for child in getattr(root, "children", ()):
        yield from widgets(child)


def is_visible(page: Page, widget: Any) -> bool:
    """Whether neither the widget nor what it is in is hidden."""

    def path(root: Any) -> list[Any] | None:
        if root is widget:
            return [root]
        for child in getattr(root, "children", ()):
            if (found := path(child)) is not None:
                return [root, *found]
        return None

    found = path(page.widget)
    assert found is not None
    return all(one.layout.display != "none" for one in found)


def search(page: Page, text: str) -> tuple[str, ...]:
    """The rows on show after a text was typed."""
    page._search.value = text
    assert page.settle()
    return tuple(page._found.select.options)


def choose(page: Page, row: int = 0, tag: str | None = None) -> None:
    page._found.select.index = row
    assert page.settle()
    if tag is not None:
        page._tags.select.index = list(page._tags.visible).index(tag)


def press(button: ipywidgets.Button) -> None:
    assert not button.disabled
    button.click()


def approve(console: RegistryConsole, page: Page) -> None:
    until(lambda: page._question is not None)
    press(page._approve)
    done(console, page)


def done(console: RegistryConsole, page: Page) -> None:
    until(lambda: not console.busy)
    assert console._acting is not None
    console._acting.join(10)
    assert page.settle()


def told(console: RegistryConsole, *names: str) -> list[Entry]:
    return [entry for entry in journal.read(console.folder / journal.NAME) if entry["event"] in names]


# searching


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("", Query()),
        ("  Web  Shop ", Query(("web", "shop"))),
        ("shop:1.2", Query(("shop",), tag="1.2")),
        ("shop:", Query(("shop",), tag="")),
        (":RC", Query((), tag="rc")),
        ("shop@sha256:AB", Query(("shop",), digest="sha256:ab")),
        ("127.0.0.1:8600/web/shop:1.2", Query(("web/shop",), tag="1.2")),
    ],
)
def test_a_search_is_written_as_docker_writes_references(text: str, query: Query) -> None:
    assert Query.parse(text, "127.0.0.1:8600") == query


def test_newer_tags_come_first_and_latest_before_all() -> None:
    tags = ["1.9", "1.10", "latest", "1.10-rc1", "beta", "2"]
    assert newest_first(tags) == ("latest", "2", "1.10-rc1", "1.10", "1.9", "beta")


@pytest.fixture
def many(registry: FakeRegistry) -> FakeRegistry:
    """Ten thousand repositories; every hundredth is of the shop."""
    for number in range(10_000):
        team = "shop" if number % 100 == 0 else "team"
        registry.push(f"{team}{number % 7}/service-{number:05}", f"1.{number % 3}", "base", f"{number}")
    return registry


def test_ten_thousand_names_are_read_once_and_a_search_asks_nothing(many: FakeRegistry, open_console: Open) -> None:
    page = shown(open_console())
    assert many.asked == {"page": 10}
    assert search(page, "")[0] == "shop0/service-00000"
    for text in ("s", "sh", "sho", "shop", "shop3", "service-09999", "nowhere"):
        search(page, text)
    assert many.asked == {"page": 10}
    assert len(search(page, "shop")) == 20
    assert "100 repositories match." in page._state.value
    assert "1–20 of 100" in page._found._where.value


def test_the_best_match_comes_first(open_console: Open, registry: FakeRegistry) -> None:
    for name in ("a/webshop", "shop", "web/shop", "shopping"):
        registry.push(name, "1", "base")
    assert search(shown(open_console()), "shop") == ("shop", "shopping", "web/shop", "a/webshop")


def test_only_the_rows_on_show_are_sent(many: FakeRegistry, open_console: Open) -> None:
    page = shown(open_console())
    largest = max(len(json.dumps(widget.get_state(), default=str)) for widget in widgets(page.widget))
    assert largest < 20_000  # the style sheet; a list of all names would have 250,000
    press(page._found._forth)
    assert "21–40 of 10,000" in page._found._where.value
    assert page._found.select.options[0] == sorted(many.held)[20]
    assert many.asked == {"page": 10}


def test_keys_pressed_quickly_are_one_search(
    many: FakeRegistry, open_console: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = shown(open_console())
    searched: list[Query] = []
    show = page._show_found
    monkeypatch.setattr(page, "_show_found", lambda query, *rest: (searched.append(query), show(query, *rest)))
    for end in range(1, 6):
        page._search.value = "shop3"[:end]
    assert page.settle()
    assert searched == [Query(("shop3",))]


def test_a_search_for_a_tag_asks_each_repository_that_matches_once(many: FakeRegistry, open_console: Open) -> None:
    page = shown(open_console())
    rows = search(page, "shop:1.2")
    assert many.asked == {"page": 10, "tags": 100}
    assert "33 tags found." in page._state.value
    assert rows[0] == "shop0/service-01400:1.2"
    search(page, "shop:1.1")
    assert many.asked == {"page": 10, "tags": 100}
    search(page, "service-00001:")
    assert many.asked == {"page": 10, "tags": 101}


def test_a_search_that_is_not_wanted_any_more_stops_asking(many: FakeRegistry, open_console: Open) -> None:
    page = shown(open_console())
    first = threading.Event()

    def before(question: str) -> None:
        if question == "tags":
            first.set()
            time.sleep(0.001)

    many.before = before
    page._search.value = ":1.2"
    assert first.wait(10)
    search(page, "shop")
    assert many.asked["tags"] < 9000  # of the 10,000 that match ":1.2"


def test_names_are_on_show_while_the_catalog_is_being_read(many: FakeRegistry, open_console: Open) -> None:
    third, go_on = threading.Event(), threading.Event()

    def before(question: str) -> None:
        if many.asked["page"] == 3:
            third.set()
            assert go_on.wait(10)

    many.before = before
    console = open_console()
    console.show()
    page = console._page
    assert page is not None
    assert third.wait(10)
    until(lambda: "2,000 repositories so far" in page._state.value)
    assert page._found.select.options[0] == "shop0/service-00000"
    go_on.set()
    assert page.settle()
    assert "10,000 repositories, read at" in page._state.value


def test_a_catalog_that_cannot_be_read_to_its_end_is_told_and_what_was_read_is_searched(
    many: FakeRegistry, open_console: Open
) -> None:
    def before(question: str) -> None:
        if many.asked["page"] == 4:
            raise EndpointUnreachable("registry: connection refused", "see that it runs")

    many.before = before
    page = shown(open_console())
    assert "connection refused" in page._trouble.value
    assert "3,000 repositories are known" in page._state.value
    assert len(search(page, "shop")) == 20
    many.before = lambda question: None
    press(page._refresh_button)
    assert page.settle()
    assert page._trouble.value == ""
    assert "10,000 repositories, read at" in page._state.value


# looking


@pytest.fixture
def shop(registry: FakeRegistry) -> FakeRegistry:
    registry.push("web/shop", "1.0", "base", "one")
    registry.push("web/shop", "1.1", "base", "two")
    registry.push("web/shop", "stable", "base", "two")
    registry.push("web/till", "1.0", "base", "till")
    return registry


def test_a_repository_shows_its_tags_and_which_are_the_same_image(shop: FakeRegistry, open_console: Open) -> None:
    page = shown(open_console())
    search(page, "web/shop")
    choose(page)
    rows = [row.replace("\N{NO-BREAK SPACE}", " ").split() for row in page._tags.select.options]
    assert [row[0] for row in rows] == ["1.1", "1.0", "stable"]
    digest = shop.held["web/shop"]["1.1"].digest.removeprefix("sha256:")
    assert rows[0][1:] == [digest[:12], "8.0", "kB", "2", "2016-05-31", "14:12", "stable"]
    assert "3 tags" in page._shelf_heading.value


def test_layers_are_shown_with_who_shares_them(shop: FakeRegistry, open_console: Open) -> None:
    shop.commands = ("ADD rootfs.tar /", "RUN make")
    page = shown(open_console())
    search(page, "web/shop")
    choose(page, tag="1.0")
    shelf = page._shelf
    assert shelf is not None
    base, own = shelf.layers("1.0")
    assert (base.digest, base.size, base.made_by, base.shared) == (
        digest_of("base"),
        4000,
        "ADD rootfs.tar /",
        ("1.1", "stable"),
    )
    assert own.shared == ()
    assert "ADD rootfs.tar /" in page._image.value
    assert "1.1, stable" in page._image.value


def test_images_are_read_for_the_rows_on_show_and_compared_up_to_a_limit(
    registry: FakeRegistry, open_console: Open
) -> None:
    for number in range(500):
        registry.push("big", f"{number}", "base", f"{number}")
    page = shown(open_console())
    choose(page)
    assert registry.asked == {"page": 1, "tags": 1, "manifest": 200, "image": 10}
    assert "told of the 200 that were read" in page._shelf_heading.value
    press(page._tags._forth)
    assert page.settle()
    assert registry.asked["image"] == 20


def test_a_tag_that_was_searched_for_is_chosen_in_its_repository(registry: FakeRegistry, open_console: Open) -> None:
    for number in range(50):
        registry.push("big", f"1.{number}", "base", f"{number}")
    page = shown(open_console())
    search(page, "big:1.7")
    choose(page)
    assert page._tag == "1.7"
    assert page._tags.visible[page._tags.select.index] == "1.7"
    assert digest_of(registry.held["big"]["1.7"].raw.decode()) in page._image.value


def test_a_digest_that_was_searched_for_is_shown_with_its_tags(shop: FakeRegistry, open_console: Open) -> None:
    page = shown(open_console())
    digest = shop.held["web/shop"]["1.1"].digest
    assert search(page, f"web/shop@{digest}") == (f"web/shop@{digest}",)
    choose(page)
    assert page._tag == digest
    assert "1.1, stable" in page._image.value


def test_an_image_that_cannot_be_read_says_why_and_the_others_are_shown(shop: FakeRegistry, open_console: Open) -> None:
    page = shown(open_console())
    manifest = shop.manifest

    def damaged(repository: str, reference: str) -> Any:
        if reference == "1.0":
            raise EndpointUnreachable("the disk is gone", "mount it")
        return manifest(repository, reference)

    shop.manifest = damaged  # type: ignore[method-assign]
    search(page, "web/shop")
    choose(page, tag="1.0")
    assert "the disk is gone" in page._image.value
    assert "cannot" in page._tags.select.options[1]
    assert "8.0" in page._tags.select.options[0]


def test_nothing_of_a_registry_becomes_html(registry: FakeRegistry, open_console: Open) -> None:
    evil = "<img src=x onerror=alert(1)>"
    registry.push(f"web/{evil}", f"1-{evil}", "base")
    registry.commands = (f"RUN {evil}",)
    console = open_console("plan")
    page = shown(console)
    choose(page, tag=f"1-{evil}")
    press(page._delete_button)
    done(console, page)
    html = "".join(widget.value for widget in widgets(page.widget) if isinstance(widget, ipywidgets.HTML))
    assert "&lt;img src=x" in html
    assert "<img" not in html


# acting


def at_tag(page: Page, name: str, tag: str) -> None:
    search(page, name)
    choose(page, tag=tag)


def opened_at(open_console: Open, tag: str, mode: str = "apply") -> tuple[RegistryConsole, Page]:
    """A console at which a tag of web/shop is chosen."""
    console = open_console(mode)
    page = shown(console)
    at_tag(page, "web/shop", tag)
    return console, page


def asked_to_delete(open_console: Open, tag: str, mode: str = "apply") -> tuple[RegistryConsole, Page]:
    """The same, and somebody has pressed the button that deletes it."""
    console, page = opened_at(open_console, tag, mode)
    press(page._delete_button)
    return console, page


def test_a_delete_says_first_what_goes_too_and_is_done_once_approved(shop: FakeRegistry, open_console: Open) -> None:
    console, page = asked_to_delete(open_console, "1.1")
    until(lambda: page._question is not None)
    assert is_visible(page, page._approve)
    assert "Delete web/shop:1.1? stable names the same image and goes, too." in page._asked.value
    for tag in ("web/shop:1.1", "web/shop:stable"):
        assert tag in page._asked.value
    assert shop.asked["delete"] == 0
    assert page._delete_button.disabled
    approve(console, page)
    assert sorted(shop.held["web/shop"]) == ["1.0"]
    assert [row.split("\N{NO-BREAK SPACE}")[0] for row in page._tags.select.options] == ["1.0"]
    assert "delete web/shop:1.1" in page._log.value
    (gate,) = told(console, "gate")
    assert (gate["name"], gate["answer"], gate["by"]) == ("delete-tag", "approved", "button in the console")
    (step,) = told(console, "step")
    assert (step["host"], step["step"], step["status"]) == ("registry", "delete web/shop:1.1", "changed")
    assert [gate["section"], step["section"]] == ["action 1"] * 2
    assert "-stable: sha256:" in step["diff"]


def test_a_delete_says_which_index_it_would_break(shop: FakeRegistry, open_console: Open) -> None:
    shop.push_index("web/shop", "multi", "1.0", "1.1")
    console, page = asked_to_delete(open_console, "1.0", "plan")
    done(console, page)
    assert told(console, "step")[0]["summary"] == "multi lists it and breaks for its platform."
    assert "broken for a platform" in page._asked.value


def test_an_index_is_shown_with_its_platforms(shop: FakeRegistry, open_console: Open) -> None:
    shop.push_index("web/shop", "multi", "1.0", "1.1")
    page = shown(open_console())
    at_tag(page, "web/shop", "multi")
    row = page._tags.select.options[list(page._tags.visible).index("multi")]
    assert "index" in row
    assert "linux/arm0" in page._image.value
    assert shop.held["web/shop"]["1.1"].digest in page._image.value


def test_a_search_is_made_again_once_something_was_deleted(shop: FakeRegistry, open_console: Open) -> None:
    console = open_console()
    page = shown(console)
    assert search(page, "web/shop:1") == ("web/shop:1.1", "web/shop:1.0")
    choose(page, 1)
    press(page._delete_button)
    approve(console, page)
    assert page._found.select.options == ("web/shop:1.1",)


def test_a_digest_can_be_deleted(shop: FakeRegistry, open_console: Open) -> None:
    console = open_console()
    page = shown(console)
    search(page, f"web/shop@{shop.held['web/shop']['1.1'].digest}")
    choose(page)
    press(page._delete_button)
    approve(console, page)
    assert sorted(shop.held["web/shop"]) == ["1.0"]
    assert console.entries[-1].status == "changed"


def test_the_record_names_a_deleted_image_that_had_no_tag(shop: FakeRegistry, open_console: Open) -> None:
    shop.push("web/till", "1.0", "base", "till")
    digest = shop.held["web/till"]["1.0"].digest
    shop.held["web/till"] = {digest: shop.held["web/till"]["1.0"]}
    shop.tags_of = lambda repository, digest: []  # type: ignore[method-assign]
    console = open_console("plan")
    page = shown(console)
    search(page, f"web/till@{digest}")
    choose(page)
    press(page._delete_button)
    done(console, page)
    assert told(console, "step")[0]["diff"] == f"-{digest}: {digest}\n+{digest}: deleted\n"


def test_with_its_last_tag_a_repository_may_go_too(
    shop: FakeRegistry, open_console: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A storage without empty folders has none for its tags then, and the registry knows it no more (2.8.2)."""
    delete = shop.delete

    def forgets(repository: str, digest: str) -> None:
        delete(repository, digest)
        del shop.held[repository]

    monkeypatch.setattr(shop, "delete", forgets)
    console = open_console()
    page = shown(console)
    at_tag(page, "web/till", "1.0")
    press(page._delete_button)
    approve(console, page)
    assert told(console, "step")[0]["status"] == "changed"
    assert "0 tags" in page._shelf_heading.value
    assert page._trouble.value == ""


def test_a_refused_gate_is_recorded_and_nothing_is_done(shop: FakeRegistry, open_console: Open) -> None:
    console, page = asked_to_delete(open_console, "1.1")
    until(lambda: page._question is not None)
    press(page._refuse)
    done(console, page)
    assert len(shop.held["web/shop"]) == 3
    assert shop.asked["delete"] == 0
    assert told(console, "gate")[0]["answer"] == "refused"
    assert told(console, "step")[0]["status"] == "skipped"
    assert told(console, "section_finished")[0]["outcome"] == "ok"
    assert not page._delete_button.disabled


def test_approvals_in_the_parameters_open_no_gate_here(site: Path, shop: FakeRegistry, open_console: Open) -> None:
    site.write_text(SITE + "approvals: [delete-tag]\n")
    _, page = asked_to_delete(open_console, "1.1")
    until(lambda: page._question is not None)
    assert shop.asked["delete"] == 0


def test_a_gate_that_nobody_answers_stays_shut(shop: FakeRegistry, open_console: Open) -> None:
    console = open_console()
    console.desk._deadline = 0.1
    page = shown(console)
    at_tag(page, "web/shop", "1.1")
    press(page._delete_button)
    done(console, page)
    assert told(console, "gate")[0]["answer"] == "refused"
    assert shop.asked["delete"] == 0


def test_what_was_pushed_while_the_question_stood_is_not_deleted(shop: FakeRegistry, open_console: Open) -> None:
    console, page = asked_to_delete(open_console, "1.1")
    until(lambda: page._question is not None)
    shop.push("web/shop", "canary", "base", "two")
    press(page._approve)
    done(console, page)
    assert shop.asked["delete"] == 0
    assert "somebody changed these tags" in page._asked.value
    assert told(console, "section_finished")[0]["outcome"] == "failed"


def test_a_registry_that_refuses_is_told_with_its_remedy(
    shop: FakeRegistry, open_console: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disabled(repository: str, digest: str) -> None:
        raise DeleteDisabled("registry: deleting is not enabled", "set registry.delete_enabled")

    monkeypatch.setattr(shop, "delete", disabled)
    console, page = asked_to_delete(open_console, "1.0")
    approve(console, page)
    assert "set registry.delete_enabled" in page._asked.value
    summary = console.end()
    assert summary is not None
    assert summary.outcome is Outcome.FAILED


def test_a_registry_that_only_says_so_is_found_out(
    shop: FakeRegistry, open_console: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shop, "delete", lambda repository, digest: None)
    console, page = asked_to_delete(open_console, "1.0")
    approve(console, page)
    assert told(console, "step") == []
    assert "still has 1.0" in console.entries[-1].error.message  # type: ignore[union-attr]


def test_a_plan_tells_what_it_would_do_and_does_nothing(shop: FakeRegistry, open_console: Open) -> None:
    console, page = asked_to_delete(open_console, "1.1", "plan")
    done(console, page)
    assert told(console, "gate") == []
    (step,) = told(console, "step")
    assert (step["status"], step["summary"]) == ("would change", "stable names the same image and goes, too.")
    assert "web/shop:stable" in page._asked.value
    assert shop.asked["delete"] == 0
    summary = console.end()
    assert summary is not None
    assert summary.outcome is Outcome.WOULD_CHANGE


def test_an_image_is_promoted_to_another_repository(shop: FakeRegistry, open_console: Open) -> None:
    console, page = opened_at(open_console, "1.1")
    press(page._retag_button)
    assert is_visible(page, page._form)
    page._to.value, page._as.value = "prod/shop", "2016-06"
    page._retag()
    approve(console, page)
    assert shop.held["prod/shop"]["2016-06"].digest == shop.held["web/shop"]["1.1"].digest
    assert search(page, "prod") == ("prod/shop",)
    (step,) = told(console, "step")
    assert (step["step"], step["status"]) == ("tag web/shop:1.1 as prod/shop:2016-06", "changed")
    assert told(console, "gate")[0]["name"] == "retag"


def test_a_tag_that_would_move_says_what_it_names_at_present(shop: FakeRegistry, open_console: Open) -> None:
    console = open_console()
    page = shown(console)
    old, new = (shop.held["web/shop"][tag].digest for tag in ("1.1", "1.0"))
    at_tag(page, "web/shop", "1.0")
    page._open_form()
    page._as.value = "stable"
    page._retag()
    until(lambda: page._question is not None)
    assert "would name that one no more" in page._asked.value
    assert old in page._asked.value
    assert new in page._asked.value
    press(page._approve)
    done(console, page)
    assert shop.held["web/shop"]["stable"].digest == new


def test_a_tag_that_is_there_already_is_left_alone(shop: FakeRegistry, open_console: Open) -> None:
    console, page = opened_at(open_console, "1.1")
    page._open_form()
    page._as.value = "stable"
    page._retag()
    done(console, page)
    assert console.entries[-1].status == "ok"
    assert told(console, "gate") == []
    assert shop.asked["retag"] == 0


@pytest.mark.parametrize(("to", "tag", "said"), [("Web/Shop", "1", "cannot name a repository"), ("web", "a b", "tag")])
def test_a_name_that_is_none_is_told_before_anything_is_asked(
    shop: FakeRegistry, open_console: Open, to: str, tag: str, said: str
) -> None:
    console, page = opened_at(open_console, "1.1")
    page._open_form()
    page._to.value, page._as.value = to, tag
    page._retag()
    assert said in page._form_trouble.value
    assert console.entries == ()


def test_nothing_is_changed_while_somebody_else_changes_the_site(
    site: Path, shop: FakeRegistry, open_console: Open
) -> None:
    console, page = opened_at(open_console, "1.0")
    with SiteLock(Site.load(site), Holder("ann@desk", "20160531-rollout", 1, "2016-05-31T14:12:00Z")):
        press(page._delete_button)
        approve(console, page)
    assert isinstance(console.entries[-1].error, LockHeld)
    assert shop.asked["delete"] == 0


def collects(hosts: Hosts, *, untagged: bool = False) -> ApplyResult:
    """Collects as `services.registry.garbage` does, as far as the console sees: a gate, and a row."""
    if hosts.mode is Mode.APPLY:
        evidence = pd.DataFrame({"digest": ["sha256:ab"], "bytes": [123_456], "repositories": ["web/shop"]})
        hosts.approval.ask("collect-garbage", f"free 1 blob (untagged: {untagged})", evidence)
    status = Status.CHANGED if hosts.mode is Mode.APPLY else Status.WOULD_CHANGE
    row = StepResult("node1", "garbage of the registry", status, "remove 1 blob", "-blob sha256:ab\n")
    events.emit(event="step", **row.row())
    return ApplyResult("garbage collected", hosts.mode, (row,))


def test_garbage_is_collected_once_what_goes_was_seen(
    shop: FakeRegistry, open_console: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(garbage, "collect", collects)
    console = open_console()
    page = shown(console)
    page._untagged.value = True
    press(page._collect_button)
    until(lambda: page._question is not None)
    assert "free 1 blob (untagged: True)" in page._asked.value
    assert "123 kB" in page._asked.value
    approve(console, page)
    assert console.entries[-1].status == "changed"
    assert "remove 1 blob" in page._log.value
    assert [(gate["name"], gate["by"]) for gate in told(console, "gate")] == [
        ("collect-garbage", "button in the console")
    ]
    assert [step["host"] for step in told(console, "step")] == ["node1"]


def test_a_plan_to_collect_garbage_shows_what_would_go(
    shop: FakeRegistry, open_console: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(garbage, "collect", collects)
    console = open_console("plan")
    page = shown(console)
    press(page._collect_button)
    done(console, page)
    assert console.entries[-1].status == "would change"
    assert "-blob sha256:ab" in page._asked.value
    assert told(console, "gate") == []


def test_garbage_is_not_collected_while_somebody_else_changes_the_site(
    site: Path, shop: FakeRegistry, open_console: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(garbage, "collect", collects)
    console = open_console()
    page = shown(console)
    with SiteLock(Site.load(site), Holder("ann@desk", "20160531-rollout", 1, "2016-05-31T14:12:00Z")):
        press(page._collect_button)
        done(console, page)
    assert isinstance(console.entries[-1].error, LockHeld)
    assert told(console, "gate", "step") == []


# the session


def test_a_session_is_a_record_of_its_own(shop: FakeRegistry, open_console: Open) -> None:
    console, page = asked_to_delete(open_console, "1.0")
    approve(console, page)
    press(page._end_button)
    until(lambda: "This session has ended" in page._ended.value)
    assert record.verify(console.folder).faults == ()
    content = json.loads((console.folder / record.RECORD).read_text())
    assert (content["outcome"], content["changed"]) == ("changed", 1)
    (chapter,) = content["chapters"]
    assert (chapter["number"], chapter["title"]) == ("8.3.3", "Registry console")
    assert [(one["number"], one["title"], one["outcome"]) for one in chapter["sections"]] == [
        ("action 1", "delete web/shop:1.0", "changed")
    ]
    assert page._delete_button.disabled
    assert page._search.disabled
    assert not console.act(console.entries[-1].action)
    assert shop.closed


def test_what_an_action_does_is_on_show_meanwhile(
    shop: FakeRegistry, open_console: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    told_so, go_on = threading.Event(), threading.Event()

    def slow(hosts: Hosts, *, untagged: bool = False) -> ApplyResult:
        events.emit(event="progress", host="node1", step="container registry (read-only)", done=0, total=1)
        told_so.set()
        assert go_on.wait(10)
        return collects(hosts, untagged=untagged)

    monkeypatch.setattr(garbage, "collect", slow)
    console = open_console("plan")
    page = shown(console)
    press(page._collect_button)
    assert told_so.wait(10)
    until(lambda: "node1: container registry (read-only)" in page._asked.value)
    assert "under way" in page._log.value
    go_on.set()
    done(console, page)


def test_ending_answers_a_question_that_stands_with_no(shop: FakeRegistry, open_console: Open) -> None:
    console, page = asked_to_delete(open_console, "1.0")
    until(lambda: page._question is not None)
    summary = console.end()
    assert summary is not None
    assert summary.outcome is Outcome.OK
    assert told(console, "gate")[0]["answer"] == "refused"
    assert "1.0" in shop.held["web/shop"]


def test_ending_waits_for_an_action_under_way(shop: FakeRegistry, open_console: Open) -> None:
    console, page = opened_at(open_console, "1.0")
    deleting, go_on = threading.Event(), threading.Event()

    def before(question: str) -> None:
        if question == "delete":
            deleting.set()
            assert go_on.wait(10)

    shop.before = before
    press(page._delete_button)
    until(lambda: page._question is not None)
    press(page._approve)
    assert deleting.wait(10)
    ending = threading.Thread(target=console.end)
    ending.start()
    ending.join(0.2)
    assert ending.is_alive()
    go_on.set()
    ending.join(10)
    assert console.summary is not None
    assert console.summary.outcome is Outcome.CHANGED


def test_the_next_session_ends_the_one_before(open_console: Open) -> None:
    first = open_console()
    second = open_console()
    assert first.summary is not None
    assert first.folder != second.folder
    assert (first.folder / record.RECORD).exists()


def test_a_second_action_waits_for_its_turn(shop: FakeRegistry, open_console: Open) -> None:
    console, page = asked_to_delete(open_console, "1.0")
    until(lambda: page._question is not None)
    assert not console.act(console.entries[-1].action)
    assert len(console.entries) == 1


@pytest.mark.parametrize(
    ("mode", "yes", "said"),
    [("verify", False, "nothing to verify"), ("plan", True, "gates are answered on its page"), ("do", False, "mode")],
)
def test_what_a_console_does_not_take_is_refused_before_a_record_is_begun(
    site: Path, registry: FakeRegistry, mode: str, yes: bool, said: str
) -> None:
    with pytest.raises(ParameterError, match=said):
        RegistryConsole(site, mode=mode, yes=yes)
    assert not (site.parent / "outputs").exists()


def test_a_site_without_a_registry_is_refused(site: Path, registry: FakeRegistry) -> None:
    site.write_text(SITE.replace(", registry]", "]"))
    with pytest.raises(ParameterError, match="no host is the registry"):
        RegistryConsole(site)


# the threads that read


def test_a_worker_does_what_was_asked_last() -> None:
    began, seen = threading.Event(), []
    worker = Worker("test", lambda error: seen.append(error))

    def long(turn: Turn) -> None:
        began.set()
        turn.pause(30)
        seen.append("long")

    worker.ask(long)
    assert began.wait(10)
    worker.ask(lambda turn: seen.append("never"))
    worker.ask(lambda turn: seen.append("last"))
    assert worker.settle(10)
    assert seen[-1:] == ["last"]
    assert "long" not in seen
    worker.close()


def test_a_worker_survives_a_fault_and_tells_it() -> None:
    failed: list[Exception] = []
    worker = Worker("test", failed.append)
    worker.ask(lambda turn: 1 / 0)  # type: ignore[arg-type,return-value]
    assert worker.settle(10)
    done: list[int] = []
    worker.ask(lambda turn: done.append(1))
    assert worker.settle(10)
    assert isinstance(failed[0], ZeroDivisionError)
    assert done == [1]
    worker.close()


# words


def test_a_row_is_named_as_docker_names_it() -> None:
    assert [str(Found("a")), str(Found("a", "1")), str(Found("a", "sha256:b"))] == ["a", "a:1", "a@sha256:b"]

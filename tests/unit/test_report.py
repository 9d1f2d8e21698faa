"""The page of a record: what is on it, and that nothing in a record can be more than text on it."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_record import HOSTILE, PICTURE, make

from runbook.remote.modes import Mode
from runbook.rollout import record, report

VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """A page as a tree of tags, well-formed, with the text of each element of interest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif data.strip() and (not self.open or self.open[-1] != "style"):
            self.texts.append(" ".join(data.split()))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path)


@pytest.fixture
def page(folder: Path) -> Page:
    return Page(report.render(folder))


def test_the_page_says_what_ran_how_and_by_whom(page: Page, folder: Path) -> None:
    text = " ".join(page.texts)
    for said in ("rehearsal", "failed", folder.name, "apply", record.operator(), "198.51.100.11"):
        assert said in text
    assert [page.texts[page.texts.index(name) - 1] for name in ("changed", "ok", "skipped", "checks")] == [
        "2",
        "1",
        "1",
        "2",
    ]


def test_what_failed_stands_at_the_top(page: Page) -> None:
    assert page.texts.index("What failed") < page.texts.index("1.1 Connection string")
    assert f"failed: node1: package mesos: {HOSTILE} remedy: look" in page.texts


def test_hosts_that_changed_alike_share_a_diff_in_the_site_s_order(page: Page) -> None:
    assert page.texts.count("node1, node2") == 1
    kinds = [attributes["class"] for attributes in page.all("span") if attributes.get("class") in ("in", "out", "hunk")]
    assert kinds == ["hunk", "out", "in"]
    assert "+<b>new</b>" in page.texts


def test_steps_are_a_table_with_a_column_a_host(page: Page) -> None:
    start = page.texts.index("step")
    assert page.texts[start : start + 9] == [
        "step",
        "node1",
        "node2",
        "file /etc/conf",
        "● changed",
        "● changed",
        f"command {HOSTILE}",
        "✓ ok",
        "– skipped",
    ]


def test_checks_and_gates_are_told_with_their_evidence(page: Page) -> None:
    text = " ".join(page.texts)
    assert "✓ holds one leader node1 1.5 s evidence host mode node1 leader" in text
    assert "✗ does not hold it runs no answer 1 min 0 s remedy: start it" in text
    assert "approved restart It interrupts. by --yes" in text


def test_a_plan_s_checks_that_were_not_tried_are_told_and_counted_apart(tmp_path: Path) -> None:
    page = Page(report.render(make(tmp_path, Mode.PLAN)))
    assert "– not tried one leads no answer" in " ".join(page.texts)
    assert "○ does not hold yet it runs no answer" in " ".join(page.texts)
    assert page.texts[page.texts.index("not tried") - 3 : page.texts.index("not tried")] == ["3", "checks", "1"]


def test_versions_are_a_table(page: Page) -> None:
    start = page.texts.index("Versions")
    assert page.texts[start : start + 7] == ["Versions", "host", "kernel", "zookeeper", "node1", "3.10", "3.4.6"]


def test_the_executed_notebook_is_linked(page: Page) -> None:
    assert "01_zookeeper.ipynb" in [attributes["href"] for attributes in page.all("a")]


def test_what_cells_showed_stands_by_the_section_that_they_ran(page: Page) -> None:
    assert page.texts.index("1.1 Connection string") < page.texts.index("chapter.connection_string()")
    assert page.texts.index("outside the sections") < page.texts.index("chapter.opening()")
    first, second = (str(image["src"]) for image in page.all("img"))
    assert first.startswith("data:image/svg+xml;base64,")
    assert second.startswith("data:image/png;base64,")
    assert PICTURE not in page.texts
    (frame,) = page.all("iframe")
    assert "live state" in str(frame["srcdoc"])
    assert "drawn from the journal instead" not in str(page.tags)


def test_nothing_that_a_record_holds_becomes_a_part_of_the_page(page: Page) -> None:
    assert len(page.all("script")) == 1
    assert "taken over" not in page.scripts[0]
    assert [attributes["sandbox"] for attributes in page.all("iframe")] == ["allow-same-origin"]
    assert page.all("b") == [{}] * len(page.all("b"))
    (policy,) = (meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert str(policy).startswith("default-src 'none'; ")


def test_the_page_needs_no_network_and_no_other_file(page: Page) -> None:
    assert page.all("link") == []
    for tag, attributes in page.tags:
        for name in ("src", "srcset", "data", "poster", "background", "action"):
            assert str(attributes.get(name) or "data:").startswith("data:"), (tag, attributes)


@pytest.mark.parametrize(
    ("mode", "heading"),
    [(Mode.PLAN, "What an apply would change"), (Mode.VERIFY, "What differs from what is desired")],
)
def test_differences_stand_at_the_top_with_file_and_line(tmp_path: Path, mode: Mode, heading: str) -> None:
    page = Page(report.render(make(tmp_path, mode)))
    at = page.texts.index(heading)
    assert page.texts[at + 1] == "node1, node2: file /etc/conf:4: content differs"


def test_a_record_in_which_nothing_began_has_a_page(tmp_path: Path) -> None:
    from report_record import SITE

    from runbook.site import Site

    folder = record.begin(tmp_path, Site.parse(SITE, tmp_path / "site.yml"), Mode.PLAN)
    assert "No chapter began." in Page(report.render(folder)).texts


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(None, ""), (0.04, "0.0 s"), (9.94, "9.9 s"), (10, "10 s"), (200, "3 min 20 s"), (3600, "1 h 0 min")],
)
def test_durations(seconds: float | None, said: str) -> None:
    assert report.duration(seconds) == said

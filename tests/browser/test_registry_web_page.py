"""The registry's page of chapter 8, on a node of the lab, as a person meets it in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_in_browser import chromium
from playwright.sync_api import Browser, expect
from registry_page import LISTED, PAGE_PORT, REGISTRY_PORT, Prepared, prepared

from runbook import lab as labs
from runbook.services.registry_web import RegistryWeb

pytestmark = [pytest.mark.browser, pytest.mark.lab]
expect.set_options(timeout=30_000)


@pytest.fixture(scope="module")
def ready() -> Iterator[Prepared]:
    with labs.up() as lab, prepared(lab) as ready:
        yield ready


@pytest.fixture
def url(ready: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The page that chapter 8 runs."""
    (tmp_path / "outputs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RUNBOOK_RECORD", raising=False)
    web = RegistryWeb(ready.site_file, mode="apply", yes=True)
    web.image()
    web.run()
    web.answers()
    web.lists()
    web.finish()
    return f"http://{ready.node.address}:{PAGE_PORT}/"


@pytest.fixture
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def test_the_page_lists_what_was_pushed_down_to_its_layers(browser: Browser, url: str, ready: Prepared) -> None:
    page = browser.new_page(viewport={"width": 900, "height": 600})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    expect(page.get_by_role("heading", name="Repositories")).to_be_visible()
    links = page.locator("table a")
    expect(links).to_have_text([*LISTED])
    expect(page.get_by_text(f"{ready.node.address}:{REGISTRY_PORT}", exact=True)).to_be_visible()
    expect(page.locator("footer")).to_contain_text("rehearsal double of hyper/docker-registry-web")
    links.filter(has_text="demo/hello").click()
    expect(page.get_by_role("heading", name="Tags")).to_be_visible()
    assert sorted(page.locator("table a").all_inner_texts()) == ["1.0", "1.1"]
    expect(page.get_by_role("button", name="Delete")).to_have_count(0)  # it is run read-only
    page.get_by_role("link", name="1.1").click()
    expect(page.get_by_text("1 layers")).to_be_visible()
    assert all(one.startswith(url) for one in asked), asked

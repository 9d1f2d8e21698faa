"""The registry's console in a real browser, by Voilà and in JupyterLab, on a real registry."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from console_server import Console, serving, site
from lab_in_browser import chromium, run_all
from lab_in_browser import running as jupyterlab
from playwright.sync_api import Browser, Locator, Page, expect
from registry_daemon import DOCKER_MANIFEST, Pusher, Running, layer, program, running

from runbook.rollout import record

pytestmark = pytest.mark.browser
expect.set_options(timeout=30_000)

BASE = layer("base", 4000)
EVIL = "<img src=x onerror=\"document.title='broken into'\">"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A registry that deletes, with thirty repositories."""
    binary = program(tmp_path_factory.mktemp("docker-registry"))
    folder = tmp_path_factory.mktemp("registry")
    with running(binary, folder, storage={"delete": {"enabled": True}}) as registry:
        pusher = Pusher(registry.url)
        for number in range(30):
            pusher.image(f"team/service-{number:02}", "1.0", (BASE,))
        yield registry


@pytest.fixture
def shop(registry: Running) -> Pusher:
    """A repository with three tags of two images."""
    pusher = Pusher(registry.url)
    for tag, content in (("1.0", "one"), ("1.1", "two"), ("stable", "two")):
        pusher.image("web/shop", tag, (BASE, layer(content)))
    return pusher


@pytest.fixture(scope="module")
def console(registry: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    with serving(tmp_path_factory.mktemp("console"), port_of(registry), gone=15) as console:
        yield console
        assert console.end() == 0
        assert [folder for folder in console.records if not (folder / record.RECORD).exists()] == killed


killed: list[Path] = []
"""The records of sessions whose kernel a test killed: no others are left open by a server that has ended."""


@pytest.fixture(scope="module", autouse=True)
def abandoned(console: Console, browser: Browser) -> Path:
    """The record of a session whose page is gone: Playwright closes without asking the page, as a crash does."""
    opened_page(console, browser).close()
    return console.records[0]


@pytest.fixture
def page(console: Console, browser: Browser) -> Iterator[Page]:
    opened = opened_page(console, browser)
    yield opened
    opened.close()


def port_of(registry: Running) -> int:
    return int(registry.url.rpartition(":")[2])


def opened_page(console: Console, browser: Browser, scheme: str = "light") -> Page:
    """The console's page, once the catalog is read."""
    page = browser.new_page(color_scheme=scheme, viewport={"width": 1300, "height": 1000})  # type: ignore[arg-type]
    page.goto(console.url)
    expect(page.get_by_role("status")).to_contain_text("repositories, read at", timeout=60_000)
    return page


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def choose(page: Page, repository: str, tag: str) -> None:
    page.get_by_label("Search", exact=True).fill(repository)
    rows = page.get_by_label("Repositories")
    expect(rows.locator("option").first).to_have_text(repository)
    rows.select_option(repository)
    row = page.get_by_label("Tags").locator("option", has_text=re.compile(rf"^{re.escape(tag)}\s"))
    expect(row).to_contain_text("2016-06-03")
    row.click()
    expect(page.get_by_role("heading", name=tag, exact=True)).to_be_visible()


def tags(registry: Running, repository: str) -> list[str]:
    return requests.get(f"{registry.url}/v2/{repository}/tags/list", timeout=10).json()["tags"] or []


def names(rows: Locator) -> list[str]:
    return [text.split("\N{NO-BREAK SPACE}")[0] for text in rows.locator("option").all_inner_texts()]


def until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_tag_that_is_deleted_is_gone_from_the_page_and_from_the_registry(
    shop: Pusher, registry: Running, console: Console, page: Page
) -> None:
    choose(page, "web/shop", "1.1")
    press(page, "Delete…")
    question = page.get_by_role("heading", name="Delete web/shop:1.1? stable names the same image and goes, too.")
    expect(question).to_be_visible()
    assert sorted(tags(registry, "web/shop")) == ["1.0", "1.1", "stable"]
    press(page, "Approve")
    expect(page.get_by_label("Tags").locator("option")).to_have_count(1)
    assert names(page.get_by_label("Tags")) == ["1.0"]
    assert tags(registry, "web/shop") == ["1.0"]
    expect(page.locator(".rc-log")).to_contain_text("changed")
    expect(page.locator(".rc-log")).to_contain_text("delete web/shop:1.1")

    press(page, "End session")
    expect(page.get_by_text("This session has ended")).to_be_visible()
    folder = console.records[-1]
    assert record.verify(folder).faults == ()
    content = json.loads((folder / record.RECORD).read_text())
    (section,) = content["chapters"][0]["sections"]
    assert (section["title"], section["outcome"]) == ("delete web/shop:1.1", "changed")
    assert [(gate["name"], gate["answer"]) for gate in section["gates"]] == [("delete-tag", "approved")]


def test_a_refused_delete_deletes_nothing(shop: Pusher, registry: Running, page: Page) -> None:
    choose(page, "web/shop", "1.1")
    press(page, "Delete…")
    press(page, "Refuse")
    expect(page.get_by_text("refused at its gate: nothing was done").first).to_be_visible()
    assert sorted(tags(registry, "web/shop")) == ["1.0", "1.1", "stable"]


def test_an_image_is_promoted(shop: Pusher, registry: Running, page: Page) -> None:
    choose(page, "web/shop", "1.1")
    press(page, "Tag…")
    page.get_by_label("Repository", exact=True).fill("prod/shop")
    page.get_by_label("Tag", exact=True).fill("2016-06")
    press(page, "Tag it…")
    press(page, "Approve")
    expect(page.locator(".rc-log")).to_contain_text("tag web/shop:1.1 as prod/shop:2016-06")
    expect(page.locator(".rc-log .rc-news")).to_be_visible()
    assert tags(registry, "prod/shop") == ["2016-06"]
    page.get_by_label("Search", exact=True).fill("prod:06")
    expect(page.get_by_label("Repositories").locator("option")).to_have_text(["prod/shop:2016-06"])


def test_it_is_used_by_keyboard(shop: Pusher, page: Page) -> None:
    page.get_by_label("Search", exact=True).focus()
    page.keyboard.type("service-2")
    expect(page.get_by_label("Repositories").locator("option")).to_have_count(10)
    for _ in range(2):  # past the button that reads again
        page.keyboard.press("Tab")
    expect(page.get_by_label("Repositories")).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("heading", name="team/service-21", exact=True)).to_be_visible()
    expect(page.get_by_label("Tags").locator("option")).to_contain_text(["2016-06-03"])
    page.get_by_label("Tags").focus()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("button", name="Delete…")).to_be_visible()


def test_what_a_registry_holds_does_not_run_in_the_page(registry: Running, page: Page) -> None:
    pusher = Pusher(registry.url)
    steps = {"history": [{"created": "2016-06-03T09:12:50Z", "created_by": EVIL}], "created": "2016-06-03T09:12:50Z"}
    config = {"mediaType": "application/json", **pusher.blob("web/evil", json.dumps(steps).encode())}
    content = {"mediaType": "application/octet-stream", **pusher.blob("web/evil", BASE)}
    manifest = {"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": config, "layers": [content]}
    pusher.manifest("web/evil", "1.0", manifest, DOCKER_MANIFEST)
    press(page, "Read again")
    choose(page, "web/evil", "1.0")
    expect(page.get_by_text(EVIL)).to_be_visible()
    assert page.locator("img").count() == 0
    assert page.title() == "registry_console"


CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const painted = (colours) => {  // one over the other, as some let through what is behind them
    for (const colour of ["white", ...colours]) {
      canvas.fillStyle = colour;
      canvas.fillRect(0, 0, 1, 1);
    }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const behind = (element) =>
    element ? [...behind(element.parentElement), getComputedStyle(element).backgroundColor] : [];
  const channel = (value) => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = ([red, green, blue]) =>
    0.2126 * channel(red / 255) + 0.7152 * channel(green / 255) + 0.0722 * channel(blue / 255);
  const own = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  const looked = (element) => own(element) && element.checkVisibility() && !element.disabled;
  return [...document.querySelectorAll(".rc-page *")].filter(looked).map((element) => {
    const backgrounds = behind(element);
    const pair = [light(painted([...backgrounds, getComputedStyle(element).color])), light(painted(backgrounds))];
    return [(Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05), element.className, element.innerText];
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_in_light_and_dark(shop: Pusher, console: Console, browser: Browser, scheme: str) -> None:
    """WCAG 2.1, 1.4.3: a contrast of at least 4.5, but for what cannot be used at the moment."""
    page = opened_page(console, browser, scheme)
    choose(page, "web/shop", "1.1")
    press(page, "Delete…")
    expect(page.get_by_role("button", name="Approve")).to_be_visible()
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper)[:3])) < 200) == (scheme == "dark")
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 50
    assert [one for one in contrasts if one[0] < 4.5] == []
    page.close()


def test_nothing_is_loaded_from_elsewhere(console: Console, browser: Browser) -> None:
    page = browser.new_page()
    loaded: list[str] = []
    page.on("requestfinished", lambda request: loaded.append(request.url))
    page.goto(console.url)
    expect(page.get_by_role("status")).to_contain_text("repositories, read at", timeout=60_000)
    assert len(loaded) > 5
    assert [url for url in loaded if not url.startswith((console.address, "data:", "blob:"))] == []
    page.close()


def test_nobody_gets_in_without_the_token(console: Console, page: Page, browser: Browser) -> None:
    other = browser.new_context().new_page()  # without the first one's cookie
    other.goto(console.address)
    expect(other.get_by_text("Token authentication is enabled")).to_be_visible()
    assert "Repositories" not in other.content()
    kernel = page.evaluate("JSON.parse(document.getElementById('jupyter-config-data').textContent).kernelId")
    opens = """url => new Promise(told => {
      const socket = new WebSocket(url);
      socket.onopen = () => told("open");
      socket.onerror = () => told("refused");
    })"""
    socket = f"{console.address.replace('http', 'ws')}/api/kernels/{kernel}/channels"
    assert other.evaluate(opens, socket) == "refused"
    assert page.evaluate(opens, socket) == "open"
    other.context.close()


def test_a_kernel_that_is_killed_leaves_a_record_that_says_so(
    shop: Pusher, registry: Running, console: Console, browser: Browser
) -> None:
    page = opened_page(console, browser)
    folder = console.records[-1]
    choose(page, "web/shop", "1.1")
    press(page, "Delete…")
    expect(page.get_by_role("button", name="Approve")).to_be_visible()
    kernel = page.evaluate("JSON.parse(document.getElementById('jupyter-config-data').textContent).kernelId")
    (process,) = [
        int(path.name)
        for path in Path("/proc").glob("[0-9]*")
        if path.is_dir() and kernel in _command(path) and "ipykernel" in _command(path)
    ]
    killed.append(folder)
    os.kill(process, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{process}").exists() or "Z" in _state(process))
    history = record.history_of(folder)
    assert (history.outcome, history.closed) == ("died", False)
    assert history.chapters[0].sections[-1].outcome == "died"
    assert sorted(tags(registry, "web/shop")) == ["1.0", "1.1", "stable"]
    page.close()


def _command(path: Path) -> str:
    try:
        return (path / "cmdline").read_text()
    except OSError:  # it has ended
        return ""


def _state(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


def test_it_works_in_jupyterlab(shop: Pusher, registry: Running, browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "site.yml").write_text(site(port_of(registry)))
    with jupyterlab(tmp_path) as lab:
        lab.write(
            "console.ipynb",
            [
                "from runbook.console import RegistryConsole\n"
                f"console = RegistryConsole('{tmp_path}/site.yml', mode='apply')\n"
                "console",
                "console.show()",
            ],
        )
        page = lab.open(browser, "console.ipynb")
        run_all(page)
        choose(page, "web/shop", "1.0")
        press(page, "Delete…")
        press(page, "Approve")
        expect(page.get_by_label("Tags").locator("option")).to_have_count(2)
        assert sorted(tags(registry, "web/shop")) == ["1.1", "stable"]
        press(page, "End session")
        expect(page.get_by_text("This session has ended")).to_be_visible()
        page.close()


def test_a_page_that_is_closed_ends_its_session(console: Console, page: Page) -> None:
    folder = console.records[-1]
    assert not (folder / record.RECORD).exists()
    page.goto("about:blank")
    until((folder / record.RECORD).exists, 10)  # the page says so itself: nothing is waited for
    history = record.history_of(folder)
    assert (history.outcome, history.closed) == ("ok", True)


def test_a_page_that_is_gone_without_a_word_ends_its_session(abandoned: Path) -> None:
    until((abandoned / record.RECORD).exists)
    history = record.history_of(abandoned)
    assert (history.outcome, history.closed) == ("ok", True)

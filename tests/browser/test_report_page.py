"""The report in a real browser: frames without scripts, nothing from the network, readable in both colour schemes."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from report_record import make

from runbook.rollout import record

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = make(tmp_path_factory.mktemp("outputs"))
    record.close(folder)
    return (folder / "report.html").as_uri()


@pytest.fixture(params=["light", "dark"])
def page(browser: Browser, report: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    opened = browser.new_page(color_scheme=request.param, viewport={"width": 1200, "height": 800})
    opened.goto(report)
    yield opened
    opened.close()


def test_scripts_of_a_record_do_not_run(page: Page) -> None:
    assert page.title().startswith("rehearsal · apply · failed")
    assert page.frame_locator("iframe").locator("table.live").inner_text() == "live state"


def test_nothing_is_loaded_from_the_network(browser: Browser, report: str) -> None:
    page = browser.new_page()
    answered: list[str] = []
    page.on("requestfinished", lambda request: answered.append(request.url))
    page.goto(report)
    page.frame_locator("iframe").locator("table.live").wait_for()
    assert answered == [report]
    page.close()


def test_a_frame_is_as_high_as_what_it_holds(page: Page) -> None:
    heights = page.locator("iframe").evaluate("frame => [frame.clientHeight, frame.contentDocument.body.offsetHeight]")
    assert 0 < heights[1] <= heights[0] <= heights[1] + 40


@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_is_no_wider_than_the_window(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


CONTRASTS = """() => {
  const channel = (value) => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const [red, green, blue] = [0.2126, 0.7152, 0.0722];
  const light = ([r, g, b]) => red * channel(r / 255) + green * channel(g / 255) + blue * channel(b / 255);
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const colour = numbers(getComputedStyle(element).backgroundColor);
      if ((colour[3] ?? 1) > 0) return colour;
    }
    return [255, 255, 255];
  };
  const own = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  const shown = [...document.querySelectorAll("body *")].filter((element) => own(element) && element.checkVisibility());
  return shown.map((element) => {
    const pair = [light(numbers(getComputedStyle(element).color)), light(behind(element))];
    return [(Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05), element.className, element.innerText];
  });
}"""


def test_text_can_be_read_on_its_background(page: Page) -> None:
    """WCAG 2.1, 1.4.3: a contrast of at least 4.5."""
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 50
    assert [one for one in contrasts if one[0] < 4.5] == []


def test_diffs_unfold_on_paper(page: Page) -> None:
    diff = page.locator("details", has=page.locator("pre.diff")).first
    assert diff.get_attribute("open") is None
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert diff.get_attribute("open") is not None
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert diff.get_attribute("open") is None


def test_the_page_is_walked_by_its_headings_and_links(page: Page) -> None:
    levels = page.locator("h1, h2, h3, h4").evaluate_all("all => all.map(one => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    page.locator("nav a", has_text="Masters").click()
    assert page.url.endswith("#chapter-2")


def test_everything_with_a_role_has_a_name(page: Page) -> None:
    unnamed = page.locator("img:not([alt]), iframe:not([title]), [role=region]:not([aria-label])")
    assert unnamed.count() == 0


def test_the_record_s_folder_was_not_written_to(report: str) -> None:
    assert record.verify(Path(report.removeprefix("file://")).parent).faults == ()

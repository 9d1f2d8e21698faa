"""A gate in a real JupyterLab: its button can be pressed while its cell waits for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab_in_browser import JupyterLab, chromium, run_all, running
from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

SETUP = """
import pandas as pd
from runbook import events
from runbook.remote.gates import Approval

told = []
unsubscribe = events.subscribe(told.append)
evidence = pd.DataFrame({"host": ["node1"], "consequence": ["3 <containers> end"]})
"""
ASK = """
by = Approval().ask("restart-docker", "restart docker on node1", evidence)
print("opened by", by)
"""
TELL = "print([(event['name'], event['answer'], event['by']) for event in told if event['event'] == 'gate'])"
KERNELS = "@jupyterlab/apputils-extension:kernels-settings"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def jupyterlab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterLab]:
    with running(tmp_path_factory.mktemp("jupyterlab")) as lab:
        yield lab


@pytest.fixture
def page(jupyterlab: JupyterLab, browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The notebook with the gate, up to where it waits."""
    name = f"{request.node.name}.ipynb"
    jupyterlab.write(name, [SETUP, ASK, TELL])
    opened = jupyterlab.open(browser, name)
    run_all(opened)
    opened.get_by_role("button", name="Approve").wait_for(timeout=60_000)
    yield opened
    opened.close()


def output(page: Page, cell: int) -> str:
    """What a cell printed, once it did."""
    text = page.locator(".jp-Notebook .jp-Cell").nth(cell).locator(".jp-OutputArea-output pre").last
    text.wait_for(timeout=30_000)
    return text.inner_text()


def test_an_approved_gate_lets_the_notebook_go_on(page: Page) -> None:
    assert page.locator(".jp-Notebook-ExecutionIndicator").get_attribute("data-status") == "busy"
    assert "restart docker on node1" in page.locator(".widget-html").inner_text()
    assert "3 <containers> end" in page.locator(".widget-html").inner_text()
    page.get_by_role("button", name="Approve").click()
    assert output(page, 1) == "opened by button"
    assert output(page, 2) == "[('restart-docker', 'approved', 'button')]"
    assert page.get_by_role("button", name="Approve").is_disabled()
    assert page.get_by_role("button", name="Refuse").is_disabled()


def test_a_refused_gate_stops_the_notebook_and_says_what_to_do(page: Page) -> None:
    page.get_by_role("button", name="Refuse").click()
    told = output(page, 1)
    last = told[told.rindex("GateRefused:") :]
    assert last.split("\n") == [
        "GateRefused: the gate 'restart-docker' was not opened: restart docker on node1",
        " host        consequence",
        "node1 3 <containers> end",
        "  remedy: nothing behind it was done; run the cell again to be asked again",
    ]
    assert page.locator(".jp-Notebook .jp-Cell").nth(2).locator(".jp-OutputArea-output").count() == 0


def test_an_interrupted_gate_is_not_opened(page: Page) -> None:
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_role("menuitem", name="Interrupt Kernel", exact=True).click()
    assert "KeyboardInterrupt" in output(page, 1)


@pytest.fixture
def without_subshells(jupyterlab: JupyterLab) -> Iterator[None]:
    """As in a frontend that sends all that widgets say to the main shell."""
    jupyterlab.configure(KERNELS, commsOverSubshells="disabled")
    yield
    jupyterlab.configure(KERNELS)


@pytest.mark.parametrize(("typed", "printed"), [("restart-docker", "opened by typed"), ("no", "GateRefused")])
def test_where_buttons_cannot_be_pressed_the_answer_is_typed(
    without_subshells: None, page: Page, typed: str, printed: str
) -> None:
    field = page.get_by_role("textbox", name="Type restart-docker to approve").or_(page.locator(".jp-Stdin-input"))
    field.wait_for(timeout=30_000)
    assert "Type restart-docker to approve:" in page.locator(".jp-Stdin-prompt").inner_text()
    field.fill(typed)
    field.press("Enter")
    assert printed in output(page, 1)

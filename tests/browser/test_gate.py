"""A gate in a real JupyterLab: its button can be pressed while its cell waits for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab_in_browser import JupyterLab, chromium, run_all, running
from playwright.sync_api import Browser, Locator, Page, expect

pytestmark = pytest.mark.browser
expect.set_options(timeout=30_000)

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
    opened.get_by_role("button", name="Approve", exact=True).wait_for(timeout=60_000)
    yield opened
    opened.close()


def output(page: Page, cell: int) -> Locator:
    """The last thing that a cell printed."""
    return page.locator(".jp-Notebook .jp-Cell").nth(cell).locator(".jp-OutputArea-output pre").last


def test_an_approved_gate_lets_the_notebook_go_on(page: Page) -> None:
    question = page.locator(".widget-html")
    expect(question).to_contain_text("restart docker on node1")
    expect(question).to_contain_text("3 <containers> end")
    expect(page.locator(".jp-Notebook .jp-Cell").nth(1).locator(".jp-InputPrompt")).to_have_text("[*]:")  # it runs
    page.get_by_role("button", name="Approve", exact=True).click()
    expect(output(page, 1)).to_have_text("opened by button\n")
    expect(output(page, 2)).to_have_text("[('restart-docker', 'approved', 'button')]\n")
    expect(page.get_by_role("button", name="Approve", exact=True)).to_be_disabled()
    expect(page.get_by_role("button", name="Refuse", exact=True)).to_be_disabled()


def test_a_refused_gate_stops_the_notebook_and_says_what_to_do(page: Page) -> None:
    page.get_by_role("button", name="Refuse", exact=True).click()
    expect(output(page, 1)).to_contain_text("GateRefused")
    told = output(page, 1).inner_text().rstrip()
    assert told[told.rindex("GateRefused:") :].split("\n") == [
        "GateRefused: the gate 'restart-docker' was not opened: restart docker on node1",
        "host   consequence",
        "node1  3 <containers> end",
        "  remedy: nothing behind it was done; run the cell again to be asked again",
    ]
    expect(output(page, 2)).to_have_count(0)


def test_an_interrupted_gate_is_not_opened(page: Page) -> None:
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_role("menuitem", name="Interrupt Kernel").click()
    expect(output(page, 1)).to_contain_text("KeyboardInterrupt")


@pytest.fixture
def without_subshells(jupyterlab: JupyterLab) -> Iterator[None]:
    """As in a frontend that sends all that widgets say to the main shell."""
    jupyterlab.configure(KERNELS, commsOverSubshells="disabled")
    yield
    jupyterlab.configure(KERNELS)


@pytest.mark.usefixtures("without_subshells")
@pytest.mark.parametrize(("typed", "printed"), [("restart-docker", "opened by typed"), ("no", "GateRefused")])
def test_where_buttons_cannot_be_pressed_the_answer_is_typed(page: Page, typed: str, printed: str) -> None:
    expect(page.locator(".jp-Stdin-prompt")).to_contain_text("Type restart-docker to approve:")
    field = page.locator(".jp-Stdin-input")
    field.fill(typed)
    field.press("Enter")
    expect(output(page, 1)).to_contain_text(printed)

"""A JupyterLab of the test's own: its folders are temporary, it listens on the loopback, and asks nobody else."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, without anything that it does by itself."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(CHROMIUM))
        yield browser
        browser.close()


@dataclass(frozen=True)
class JupyterLab:
    """A server that runs; notebooks are below `folder`."""

    url: str
    token: str
    folder: Path
    settings: Path

    def configure(self, plugin: str, **settings: object) -> None:
        """Settings of a plugin (as `@jupyterlab/apputils-extension:notification`), for pages opened from now on."""
        extension, _, name = plugin.partition(":")
        path = self.settings / extension / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings))

    def write(self, name: str, cells: Sequence[str]) -> None:
        """A notebook of code cells."""
        notebook = new_notebook(
            cells=[new_code_cell(cell) for cell in cells],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        )
        nbformat.write(notebook, self.folder / name)

    def open(self, browser: Browser, name: str) -> Page:
        """The notebook in a workspace of its own, once its kernel is there."""
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        page.goto(f"{self.url}lab/workspaces/{secrets.token_hex(4)}/tree/{name}?token={self.token}")
        page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=60_000)
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=60_000)  # in the status bar
        return page


def run_all(page: Page) -> None:
    """Run the notebook's cells, one after the other."""
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


@contextmanager
def running(folder: Path, **environment: str) -> Iterator[JupyterLab]:
    """A JupyterLab whose notebooks, settings, data and home are below `folder`."""
    token = secrets.token_hex(16)
    (folder / "notebooks").mkdir()
    (folder / "home").mkdir()
    command = [
        sys.executable,
        *(
            "-m",
            "jupyterlab",
            "--no-browser",
            "--allow-root",
            "--ip=127.0.0.1",
            "--port=0",
            "--ServerApp.port_retries=0",
        ),
        *(f"--ServerApp.root_dir={folder}/notebooks", f"--IdentityProvider.token={token}"),
        *("--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.extension_manager=readonly"),
        "--ServerApp.terminals_enabled=False",
    ]
    own = {
        "HOME": f"{folder}/home",
        "JUPYTER_CONFIG_DIR": f"{folder}/config",
        "JUPYTER_DATA_DIR": f"{folder}/data",
        "JUPYTER_RUNTIME_DIR": f"{folder}/runtime",
        "JUPYTERLAB_SETTINGS_DIR": f"{folder}/settings",
        "JUPYTERLAB_WORKSPACES_DIR": f"{folder}/workspaces",
        "IPYTHONDIR": f"{folder}/ipython",
    }
    server = subprocess.Popen(
        command, env={**os.environ, **own, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    log: list[str] = []
    assert server.stderr is not None
    reading = threading.Thread(target=log.extend, args=(server.stderr,), daemon=True)
    reading.start()
    try:
        lab = JupyterLab(_address(server, log), token, folder / "notebooks", folder / "settings")
        lab.configure("@jupyterlab/apputils-extension:notification", fetchNews="false", checkForUpdates=False)
        yield lab
    finally:
        server.terminate()
        server.wait(30)
        reading.join()
        server.stderr.close()


def _address(server: subprocess.Popen[str], log: list[str], seconds: float = 90.0) -> str:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        if found := re.search(r"http://127\.0\.0\.1:\d+/", "".join(log)):
            return found[0]
        time.sleep(0.1)  # it tells its port in its log, and nowhere else before it answers
    raise AssertionError("".join(log))

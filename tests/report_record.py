"""A record with everything in it that a report can show, hostile values included."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook, new_output

from runbook.remote.modes import Mode
from runbook.rollout import record
from runbook.site import Site

SITE = """
name: rehearsal
hosts:
  - {name: node1, address: 198.51.100.11, roles: [zookeeper]}
  - {name: node2, address: 198.51.100.12, roles: [docker]}
zookeeper: {allow_even: true}
"""
DIFF = "--- /etc/conf\n+++ /etc/conf\n@@ -3,3 +3,3 @@\n a\n-<b>old</b>\n+<b>new</b>\n d\n"
HOSTILE = "<script>parent.document.title = 'taken over'</script>"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PICTURE = '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20"><rect width="40" height="20"/></svg>'


def now() -> str:
    return datetime.now(UTC).isoformat()


def make(outputs: Path, mode: Mode = Mode.APPLY) -> Path:
    """A record, not closed, of two chapters: one that changed things and one that failed."""
    site = Site.parse(SITE, outputs / "site.yml")
    folder = record.begin(outputs, site, mode)
    with record.journal_of(folder) as file:

        def tell(chapter: str, section: str | None, event: str, **more: object) -> None:
            file.append({"event": event, "chapter": chapter, "section": section, **more})

        def step(
            chapter: str, section: str, host: str, name: str, status: str, summary: str = "", diff: str = ""
        ) -> None:
            what = {"host": host, "step": name, "status": status, "summary": summary, "diff": diff, "seconds": 0.1}
            tell(chapter, section, "step", **what)

        changed = {Mode.APPLY: "changed", Mode.PLAN: "would change", Mode.VERIFY: "would change"}[mode]
        outcome = {Mode.APPLY: "changed", Mode.PLAN: "would change", Mode.VERIFY: "drift"}[mode]
        file.append({"event": "note", "text": f"somebody applies {HOSTILE}"})
        tell("1", None, "chapter_started", title="ZooKeeper", mode=mode)
        tell("1", None, "versions", host="node1", versions={"zookeeper": "3.4.6", "kernel": "3.10"})
        begun = now()
        tell("1", "1.1", "section_started", title="Connection string")
        step("1", "1.1", "node2", "file /etc/conf", changed, "content differs", DIFF)
        step("1", "1.1", "node1", "file /etc/conf", changed, "content differs", DIFF)
        step("1", "1.1", "node1", f"command {HOSTILE}", "ok")
        step("1", "1.1", "node2", f"command {HOSTILE}", "skipped")
        table = [{"host": "node1", "mode": "leader"}, {"host": "node2", "mode": HOSTILE}]
        tell(
            "1", "1.1", "check", name="one leader", holds=True, evidence="node1", remedy=None, seconds=1.5, table=table
        )
        tell("1", "1.1", "gate", name="restart", question="It interrupts.", answer="approved", by="--yes")
        tell("1", "1.1", "section_finished", title="", outcome=outcome, error=None, seconds=75.0)
        ended = now()
        tell("1", None, "chapter_finished", mode=mode, outcome=outcome, seconds=80.0)
        tell("2", None, "chapter_started", title="Masters", mode=mode)
        tell("2", "2.1", "section_started", title="Package")
        step("2", "2.1", "node1", "package mesos", "failed", "No package mesos available")
        step("2", "2.1", "node2", "package mesos", "unreachable", "connection refused")
        tell("2", "2.1", "check", name="it runs", holds=False, evidence="no answer", remedy="start it", seconds=60.0)
        if mode is Mode.PLAN:
            tell("2", "2.1", "check", name="one leads", holds=False, tried=False, evidence="no answer", seconds=0.1)
        error = f"node1: package mesos: {HOSTILE}\n  remedy: look"
        tell("2", "2.1", "section_finished", title="", outcome="failed", error=error, seconds=1.0)
        tell("2", None, "chapter_finished", title="", outcome="failed", reason=error, seconds=2.0)

    def cell(source: str, start: str, end: str, *data: dict[str, str]) -> nbformat.NotebookNode:
        run = {"papermill": {"start_time": start, "end_time": end, "status": "completed"}}
        return new_code_cell(source, metadata=run, outputs=[new_output("display_data", one) for one in data])

    live = (
        f'<table class="live"><tr><td>live state</td></tr></table>{HOSTILE}<img src="https://198.51.100.99/track.png">'
    )
    notebook = new_notebook(
        cells=[
            cell("chapter.opening()", "2020-01-01T00:00:00+00:00", "2020-01-01T00:00:01+00:00", {"image/png": PIXEL}),
            cell(
                "chapter.connection_string()",
                begun,
                ended,
                {"text/html": '<div class="runbook-result">drawn from the journal instead</div>'},
                {"text/html": live},
                {"image/svg+xml": PICTURE},
                {"text/plain": "only text"},
            ),
        ]
    )
    nbformat.write(notebook, folder / "01_zookeeper.ipynb")
    return folder

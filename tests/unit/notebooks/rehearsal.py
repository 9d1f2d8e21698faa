"""A chapter for the fixture notebooks: it tells what the SSH core would tell, without any host."""

from __future__ import annotations

import sys
import time
from typing import Any

from runbook import chapter, events
from runbook.errors import ApplyFailed
from runbook.interactive import is_interactive
from runbook.remote.checks import Evidence, check


class Chapter(chapter.Chapter):
    number, title = "1", "Rehearsal"

    def nothing_to_do(self) -> str:
        with self.section("1.1", "Nothing to do"):
            self._step("ok")
            self._check(True)
            return "result of 1.1"

    def change(self) -> str:
        with self.section("1.2", "Change"):
            self._step("changed", "conf", "--- /etc/conf\n+++ /etc/conf\n@@ -3,3 +3,3 @@\n a\n-b\n+c\n d\n")
            return "result of 1.2"

    def differ(self) -> str:
        with self.section("1.3", "Differ"):
            self._step("would change", "conf", "--- /etc/conf\n+++ /etc/conf\n@@ -3,3 +3,3 @@\n a\n-b\n+c\n d\n")
            return "result of 1.3"

    def claim(self) -> None:
        with self.section("1.4", "A claim that does not hold"):
            self._check(False)

    def fail(self) -> None:
        with self.section("1.5", "Fail"):
            self._step("failed", "exit status 1")
            raise ApplyFailed("node1: conf: exit status 1", "look at node1")

    def wait(self, seconds: float) -> None:
        with self.section("1.6", "Wait"):
            events.emit(event="progress", host="node1", step="waiting", done=1, total=2)
            time.sleep(seconds)

    def leave(self, status: int) -> None:
        with self.section("1.7", "Leave"):
            sys.exit(status)

    def say(self, text: str) -> None:
        with self.section("1.8", "Say"):
            print(text)

    def somebody_there(self) -> bool:
        return is_interactive()

    def _step(self, status: str, summary: str = "", diff: str = "") -> None:
        step: dict[str, Any] = {"host": "node1", "step": "/etc/conf", "status": status, "summary": summary}
        events.emit(event="step", diff=diff, seconds=0.01, **step)

    def _check(self, holds: bool) -> None:
        events.emit(event="check", name="one leader", holds=holds, evidence="node1 leads", seconds=0.01)


class Active(Chapter):
    parameters = Chapter.parameters | {"active_checks"}

    def act(self) -> None:
        with self.section("1.9", "An active check"):
            acted = Evidence(True, "written and read") if self.may_act else Evidence.inactive("nothing was written")
            check("what is written is read", lambda: acted, mode=self.mode)

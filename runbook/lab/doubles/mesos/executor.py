#!/usr/bin/env -S python3 -IS
"""mesos-executor: runs one task's command apart from the slave, so that it outlives the slave's restarts.

Takes its order as JSON on standard input: `argv`, `env`, `user` (or null), `exit` (the file for the outcome), `grace`
(seconds between SIGTERM and SIGKILL), `stop` (a command that ends the task instead of SIGTERM, or null), `banner`
(lines for the sandbox's stdout), `ready` (a file descriptor that takes a byte when the task has started) and `lifeline`
(one that closes with the slave, or null). From then on SIGTERM to the executor kills the task. The outcome is
`{"status": wait status, "killed": bool}`, or `{"error": why}` where the task did not start.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    order: dict[str, Any] = json.load(sys.stdin)
    for line in order["banner"]:
        print(line, flush=True)
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        # A session of its own, so that the whole tree of the task can be signalled.
        child = subprocess.Popen(
            order["argv"], env=order["env"], user=order["user"], stdin=subprocess.DEVNULL, start_new_session=True
        )
    except (OSError, LookupError, ValueError) as error:
        _leave(order, {"error": str(error)})
        return
    print(f"Forked command at {child.pid}", flush=True)
    with contextlib.suppress(BrokenPipeError):  # the slave is gone; its next life will find this executor
        os.write(order["ready"], b"1")
    os.close(order["ready"])
    killed = _wait(child, order, wake)
    status = child.wait()
    ended = f"terminated with signal {signal.strsignal(-status)}" if status < 0 else f"exited with status {status}"
    print(f"Command {ended} (pid: {child.pid})", flush=True)
    _leave(order, {"status": status, "killed": killed})


def _wait(child: subprocess.Popen[bytes], order: dict[str, Any], wake: int) -> bool:
    """Wait for the task; kill it when asked or when the slave is gone. True where it was killed."""
    ended = os.pidfd_open(child.pid)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(wake, select.POLLIN)
    if order["lifeline"] is not None:
        poll.register(order["lifeline"], select.POLLIN | select.POLLHUP)
    if ended in dict(poll.poll()):
        return False
    if order["stop"]:
        subprocess.run(order["stop"], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    else:
        os.killpg(child.pid, signal.SIGTERM)
    last = select.poll()
    last.register(ended, select.POLLIN)
    if not last.poll(order["grace"] * 1000):
        os.killpg(child.pid, signal.SIGKILL)
    return True


def _leave(order: dict[str, Any], outcome: dict[str, Any]) -> None:
    file = Path(order["exit"])
    new = file.with_suffix(".new")
    new.write_text(json.dumps(outcome), encoding="utf-8")
    new.replace(file)


if __name__ == "__main__":
    main()

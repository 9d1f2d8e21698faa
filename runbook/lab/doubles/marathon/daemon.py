"""The program: it stands for election, answers while it leads, and passes requests on while another one does."""

import logging
import os
import signal
import sys
import threading
import types

from kazoo.exceptions import KazooException

from . import flags as flag_tables
from . import zk
from .api import Api
from .flags import Flags
from .health import HealthChecker
from .mesos import Masters
from .scheduler import Scheduler
from .web import LEADER, Answer, Request, Server, forward, jetty_error, message, with_header

RETRIES, PAUSE = 10, 0.25  # how often, and after how many seconds, a request looks again who leads

log = logging.getLogger(__name__)


class Daemon:
    """One instance of Marathon."""

    def __init__(self, flags: Flags) -> None:
        self.flags = flags
        self.me = f"{flags['hostname']}:{flags['http_port']}"
        session = flags.seconds("zk_session_timeout")
        self._zookeeper, path = zk.client(flags["zk"], session)
        self._store = zk.Store(self._zookeeper, path)
        self._masters = Masters(flags["master"], lambda url: zk.client(url, session))
        self._election = zk.Election(self._zookeeper, path, self.me, self._lead)
        self._term: tuple[Scheduler, Api] | None = None
        self._over = threading.Event()
        self.server = Server((flags.get("http_address") or "0.0.0.0", flags.number("http_port")), self._front)

    def run(self) -> None:
        """Serve until SIGTERM; leadership is then given up at once."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        self.server.start()
        self._election.start()
        self._over.wait()
        self._lead(False)
        self._zookeeper.stop()
        os._exit(0)  # a health check may still wait for its answer

    def _end(self, number: int, frame: types.FrameType | None) -> None:
        self._over.set()

    def _lead(self, leads: bool) -> None:
        if self._term:
            log.info("Lost leadership")
            self._term[0].stop()
            self._term = None
        if leads:
            log.info("Elected: %s", self.me)
            webui = f"http://{self.me}"
            scheduler = Scheduler(self.flags, self._store, self._masters, webui, self._election.restart)
            self._term = scheduler, Api(scheduler, self.flags, self.me, self._election.abdicate)
            scheduler.start()
            HealthChecker(scheduler).start()

    def _front(self, request: Request) -> Answer:
        for _ in range(RETRIES):
            term, leader = self._term, self._election.leader
            if term and not term[0].stopped:
                try:
                    return with_header(term[1].answer(request), LEADER, f"http://{self.me}")
                except KazooException as error:
                    log.error("Lost the store: %r", error)
                    self._election.restart()
                    return message(500, f"The store failed: {error!r}")
            if leader not in (None, self.me):
                limits = (
                    self.flags.seconds("leader_proxy_connection_timeout"),
                    self.flags.seconds("leader_proxy_read_timeout"),
                )
                return forward(str(leader), self.me, request, *limits)
            self._over.wait(PAUSE)
        return jetty_error(503, request.path, "Could not determine the current leader")


def _die(failure: threading.ExceptHookArgs) -> None:
    """End with a thread that failed: without it the rest would only seem to work."""
    threading.__excepthook__(failure)
    os._exit(1)


def main() -> None:
    """The program marathon; takes its command line from `sys.argv`."""
    flags = flag_tables.load()
    logging.basicConfig(
        stream=sys.stdout,
        level=logging.INFO,
        format="[%(asctime)s] %(levelname)s %(message)s (%(name)s:%(threadName)s)",
    )
    logging.getLogger("kazoo").setLevel(logging.WARNING)
    try:
        daemon = Daemon(flags)
    except (ValueError, OSError) as error:
        sys.exit(f"Failed to start: {error}")
    threading.excepthook = _die
    daemon.run()

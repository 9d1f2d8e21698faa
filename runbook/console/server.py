"""`runbook console`: the registry's console as a page, served by Voilà to people who do not open JupyterLab.

Voilà runs the notebook once for everybody who opens the page, each time in a kernel of its own, so that each has a
session and a record of their own. It listens on the loopback unless told otherwise, and lets in who has the token,
which is in the address that is printed at the start: never in the command line, a file or the log. The page loads
nothing from elsewhere (Voilà's own template would, from a CDN): a closed network has no elsewhere.
"""

from __future__ import annotations

import copy
import ipaddress
import logging
import os
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

from nbformat import NotebookNode
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from tornado.escape import url_unescape
from tornado.httputil import HTTPServerRequest
from tornado.routing import Matcher, Rule
from tornado.web import ErrorHandler, RequestHandler

from runbook import sockets
from runbook.console.session import without_registry
from runbook.errors import ParameterError, Problem
from runbook.paths import upwards
from runbook.remote.modes import Mode
from runbook.secrets import redact, register
from runbook.services.registry import Registry
from runbook.site import Site

NOTEBOOK = Path("notebooks/operations/registry_console.ipynb")
BIND, PORT = "127.0.0.1", 8866
"""Where the page is, unless told otherwise: the loopback, and Voilà's own port."""
GONE = 600
"""Seconds after which a session is ended whose page is gone without a word, as with a browser that crashed."""
LOOKS = 20
"""Seconds between two looks for such sessions."""
PATIENCE = 7200.0
"""Seconds that a kernel may take to end. An action under way is not cut off: collecting garbage takes its time."""
LOGS = ("Voila", "tornado.access", "tornado.application", "tornado.general")
"""Whose messages may name a request."""
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'"
)
"""What the page may load: what Voilà and JupyterLab need, from here."""


def serve(
    site_file: Path, *, bind: str = BIND, port: int = PORT, mode: Mode = Mode.PLAN, say: Callable[[str], None] = print
) -> None:
    """Serve the page until Ctrl-C, SIGTERM or SIGHUP; `say` prints what a person needs to know.

    Raises, before anything listens, ParameterError (the parameter file, no registry in it, no notebook, an address that
    cannot be listened on), SecretError, and the registry's errors where it does not answer as one.
    """
    site = Site.load(upwards(site_file))
    if problems := without_registry(site):
        raise ParameterError(problems)
    with Registry.of(site) as registry:
        registry.ping()
    notebook = upwards(NOTEBOOK)
    if not notebook.is_file():
        raise ParameterError(
            [_problem("", f"there is no {NOTEBOOK}, here or above", "start the command within the runbook's folder")]
        )
    _try_address(bind, port)
    token = token_urlsafe(32)
    parameters = {"site_file": str(site.file.absolute()), "mode": mode.value, "yes": False}
    server = _server(notebook, _prepared(notebook, parameters), bind, port, token)
    say(f"the console of {site.name}'s registry, {site.registry_address}, in mode {mode}:")
    say(f"  http://{_host(bind)}:{port}/?token={token}")
    say(f"Whoever has this address may use it. Each page that is opened leaves a record in {upwards('outputs')}.")
    if not _is_loopback(bind):
        say(
            f"{bind} can be reached from other machines, and HTTP is not encrypted: put a proxy with TLS before it, "
            f"which passes on `Host: {_host(bind)}:{port}`."
        )
    say("Ctrl-C ends it.")
    server.start()
    say("ended")


def _prepared(notebook: Path, parameters: dict[str, Any]) -> NotebookNode:
    """The notebook with its parameters put in, and without its prose, which is for who opens the notebook itself."""
    prepared: NotebookNode = parameterize_notebook(
        load_notebook_node(str(notebook)), parameters, kernel_name="python3", language="python"
    )
    prepared.cells = [cell for cell in prepared.cells if cell.cell_type == "code"]
    return prepared


def _server(notebook: Path, prepared: NotebookNode, bind: str, port: int, token: str) -> Any:
    """Voilà, ready to start; to everybody who opens the page it shows `prepared`."""
    from jupyter_server import DEFAULT_STATIC_FILES_PATH
    from jupyter_server.log import log_request
    from traitlets.config import Config
    from voila.app import Voila
    from voila.voila_identity_provider import VoilaIdentityProvider

    def opened(request: RequestHandler, notebook: NotebookNode, cwd: str) -> NotebookNode:
        """What somebody who opens the page is shown. Asking for `xsrf_token` has its cookie sent along, which Voilà
        forgets, and without which the page cannot tell that it is closed."""
        _ = request.xsrf_token
        return copy.deepcopy(prepared)

    config = Config()
    config.Voila.ip, config.Voila.port, config.Voila.port_retries = bind, port, 0
    config.Voila.notebook_path = str(notebook.absolute())
    config.Voila.open_browser = False
    config.Voila.log_level = logging.WARNING
    config.Voila.token = token
    config.Voila.identity_provider_class = VoilaIdentityProvider  # the default one would let a password be set
    config.Voila.tornado_settings = {
        "headers": {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"},
        "log_function": log_request,  # which leaves out what went well
        "static_path": DEFAULT_STATIC_FILES_PATH,  # jupyter_server's page of an error wants them, and Voilà forgets it
        "static_url_prefix": "/voila/static/",
    }
    config.VoilaConfiguration.prelaunch_hook = opened
    config.VoilaConfiguration.show_tracebacks = True  # of a named error it is the message
    config.VoilaConfiguration.file_allowlist = []
    config.VoilaConfiguration.allow_template_override = "NO"
    config.MappingKernelManager.root_dir = os.getcwd()  # records go where a rollout's would
    config.MappingKernelManager.cull_idle_timeout = GONE
    config.MappingKernelManager.cull_interval = LOOKS
    config.KernelManager.shutdown_wait_time = PATIENCE
    config.KernelManager.transport = "ipc"  # TCP would be open to every user of this machine
    config.Voila.connection_dir_root = str(sockets.root(f"voila_{'x' * 8}/kernel-{'x' * 36}-ipc-99"))
    config.KernelManager.autorestart = False  # what was started again would have no page
    config.IdentityProvider.cookie_options = {"httponly": True, "samesite": "Strict"}

    class Served(Voila):  # type: ignore[misc]  # voila has no types
        """Voilà behind what it lacks itself: rules that come before its own."""

        def listen(self) -> None:
            self.app.default_router.rules[:0] = _rules(bind)
            super().listen()

    server = Served(config=config, config_file_paths=[])  # what lies in this folder or at home is not ours
    server.initialize([])
    register(token)
    for name in LOGS:
        logging.getLogger(name).addFilter(_mask)
    logging.getLogger("tornado.general").setLevel(logging.ERROR)  # what it warns of, the server's own log tells
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))
    return server


def _rules(bind: str) -> list[Rule]:
    """What a request meets before Voilà: a foreign name, a path out of the templates, a token to be exchanged."""
    from jupyter_server.base.handlers import JupyterHandler

    class Exchange(JupyterHandler):
        """Exchange the token in the page's address for the session's cookie, which JupyterHandler sets."""

        def get(self) -> None:
            self.set_header("Cache-Control", "no-store")
            self.redirect("/" if self.current_user else "/login")

    def foreign(request: HTTPServerRequest) -> bool:
        return not is_own(request.host, bind)

    def outside(request: HTTPServerRequest) -> bool:
        path = url_unescape(request.path, plus=False)
        return path.startswith(_TEMPLATES) and not _TEMPLATE.fullmatch(path.removeprefix(_TEMPLATES))

    def with_token(request: HTTPServerRequest) -> bool:
        return request.path == "/" and "token" in request.arguments

    refused, absent = {"status_code": 403}, {"status_code": 404}
    return [
        Rule(_Where(foreign), ErrorHandler, refused),
        Rule(_Where(outside), ErrorHandler, absent),
        Rule(_Where(with_token), Exchange),
    ]


_TEMPLATES = "/voila/templates/"
_TEMPLATE = re.compile(r"(?!\.)[^/\\\0]+/static(/(?!\.\.?(/|$))[^/\\\0]+)+")
"""What may follow: a template's name, `static`, and a path without dots that lead upwards."""


class _Where(Matcher):
    """Matches the requests for which a predicate holds."""

    def __init__(self, holds: Callable[[HTTPServerRequest], bool]) -> None:
        self._holds = holds

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        return {} if self._holds(request) else None


def is_own(host: str, bind: str) -> bool:
    """Whether a `Host:` header names this server as listening at `bind`.

    Another name is refused: with DNS rebinding a foreign page makes a browser ask here, under a name of its own. An
    address cannot be rebound, so that a server that listens at all of this machine's accepts each of them.
    """
    name = re.sub(r":\d*$", "", host, flags=re.ASCII).strip("[]").lower()
    if name in ("localhost", "127.0.0.1", "::1", bind.lower(), _host(bind).strip("[]").lower()):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return bind in ("0.0.0.0", "::", "")


def _mask(entry: logging.LogRecord) -> bool:
    """Take the token, which stands in the addresses of requests, out of what is logged of them.

    Of no use is that the notebook is not trusted: it has no outputs that could be.
    """
    entry.msg, entry.args = redact(entry.getMessage()), ()
    return not entry.msg.endswith("is not trusted")


def _try_address(bind: str, port: int) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(bind, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
    except OSError as error:
        raise ParameterError(
            [_problem("bind", f"cannot listen on {bind}:{port}: {error.strerror}", "choose another --port or --bind")]
        ) from error


def _is_loopback(bind: str) -> bool:
    try:
        return ipaddress.ip_address(bind).is_loopback
    except ValueError:
        return bind == "localhost"


def _host(bind: str) -> str:
    """The host as a browser can open it."""
    if bind in ("0.0.0.0", "::", ""):
        return socket.gethostname()
    return f"[{bind}]" if ":" in bind else bind


def _problem(field: str, message: str, remedy: str) -> Problem:
    return Problem(Path("command line"), 0, field, message, remedy)

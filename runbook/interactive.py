"""Whether somebody sits in front of this kernel."""

from __future__ import annotations

import sys


def is_interactive() -> bool:
    """True in a notebook that somebody runs cell by cell, False under papermill, nbclient or a plain program.

    Every request to execute a cell says whether its frontend could answer a question (`allow_stdin` in Jupyter's
    messaging protocol, `execute_request`): JupyterLab says yes, nbclient and so papermill say no.
    """
    if "IPython" not in sys.modules:  # no kernel: a plain program need not wait for its import
        return False
    from IPython.core.getipython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)  # None outside IPython; a terminal's IPython has no kernel
    if kernel is None:
        return False
    return bool(kernel.get_parent("shell").get("content", {}).get("allow_stdin", False))

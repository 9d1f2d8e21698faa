"""The registry's console: what the document's 8.3.3 misses in the registry's page, as a page of ipywidgets.

Search over repositories and tags, an image's layers and who shares them, delete, tag and promote, collect garbage; each
action behind a gate, and in a record. It runs in a notebook (operations/registry_console.ipynb), and as a page of its
own by Voilà (`runbook console SITE`).

What happens at 10,000 repositories: the catalog is read once, page by page, in the background; a search looks through
what was read; only the rows on show are sent to the page; images are asked for when their repository is chosen. The
parts: `index` (what is searched), `shelf` (what one repository holds), `actions`, `gate`, `session` (with its
record), `page` (the widgets), `workers` (the threads that read for it), `server` (`runbook console`).
"""

from runbook.console.session import RegistryConsole

__all__ = ["RegistryConsole"]

"""The page: widgets, what they show, and what happens when somebody uses them.

Three workers read for it: the catalog, what is searched, what is chosen. They, the thread of an action and the kernel's
own take turns at the widgets (`_lock`); nobody asks the registry anything while holding it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import ipywidgets
from markupsafe import Markup

from runbook.console import markup
from runbook.console.actions import Action, Collect, Delete, Retag
from runbook.console.gate import Question
from runbook.console.index import FOUND, Found, Index, Query
from runbook.console.shelf import Reader, Shelf
from runbook.console.workers import Turn, Worker
from runbook.errors import RunbookError
from runbook.services.registry.names import repository_name, tag_name
from runbook.wording import plural, size

if TYPE_CHECKING:
    from runbook.console.session import Entry, RegistryConsole

DEBOUNCE = 0.25
"""Seconds without a key press after which a search begins."""
REPOSITORIES, TAGS = 20, 10
"""Rows on show at a time."""

T = TypeVar("T")
_NBSP = "\N{NO-BREAK SPACE}"  # of spaces, an option of a list keeps only these


class Rows(Generic[T]):
    """A list to choose from, of which one page at a time is sent to the browser.

    `line` gives what is shown of an item, `chosen` is called when somebody chooses one, `turned` when they turn to
    another page. `lock` is the page's.
    """

    def __init__(
        self,
        label: str,
        rows: int,
        lock: threading.RLock,
        line: Callable[[T], str],
        chosen: Callable[[T], None],
        turned: Callable[[], None] = lambda: None,
    ) -> None:
        self._lock = lock
        self._rows, self._line, self._chosen, self._turned = rows, line, chosen, turned
        self._items: Sequence[T] = ()
        self._page = 0
        self._filling = False
        self.select = ipywidgets.Select(options=[], rows=rows, description=label)
        self.select.observe(self._picked, "index")
        self._where = ipywidgets.HTML()
        self._back = ipywidgets.Button(description="‹ Previous", tooltip=f"{label}: the rows before these")
        self._forth = ipywidgets.Button(description="Next ›", tooltip=f"{label}: the rows after these")
        self._back.on_click(lambda _: self._turn(-1))
        self._forth.on_click(lambda _: self._turn(1))
        self.pager = ipywidgets.HBox([self._back, self._where, self._forth]).add_class("rc-pager")
        self._show(None)

    @property
    def visible(self) -> Sequence[T]:
        """The items on show."""
        begin = self._page * self._rows
        return self._items[begin : begin + self._rows]

    def fill(self, items: Sequence[T], chosen: T | None = None, *, stay: bool = False) -> None:
        """Show other items, from the first page on, or with `stay` from where it is; `chosen` is marked."""
        self._items = items
        self._page = min(self._page, self._last) if stay else 0
        self._show(chosen)

    def turn_to(self, item: T) -> None:
        """Show the page that holds an item, and mark it."""
        if item in self._items:
            self._page = self._items.index(item) // self._rows
        self._show(item)

    @property
    def _last(self) -> int:
        return max(0, len(self._items) - 1) // self._rows

    def _show(self, chosen: T | None) -> None:
        visible = self.visible
        self._filling = True
        try:
            with self.select.hold_sync():
                labels = tuple(map(self._line, visible))
                if self.select.options != labels:
                    self.select.options = labels
                self.select.index = visible.index(chosen) if chosen in visible else None
        finally:
            self._filling = False
        begin = self._page * self._rows
        shown = f"{begin + 1:,}–{begin + len(visible):,} of {len(self._items):,}" if visible else "none"
        self._where.value = Markup("<span>{}</span>").format(shown)
        self._back.disabled = self._page == 0
        self._forth.disabled = self._page >= self._last

    def _turn(self, pages: int) -> None:
        with self._lock:
            self._page = min(max(0, self._page + pages), self._last)
            self._show(None)
            self._turned()

    def _picked(self, change: dict[str, Any]) -> None:
        with self._lock:
            # what was filled in by the same thread is not picked; what another one fills in waits for the lock
            if not self._filling and change["new"] is not None and change["new"] < len(self.visible):
                self._chosen(self.visible[change["new"]])


class Page:
    """The widgets of one session."""

    def __init__(self, console: RegistryConsole) -> None:
        self._console = console
        self._lock = threading.RLock()
        self._query = Query()
        self._shelf: Shelf | None = None
        self._tag: str | None = None
        self._reading = False
        self._question: Question | None = None
        self._result: Entry | None = None
        self._index = Index(console.registry, self._catalog_changed)
        self._catalog_worker = Worker("catalog", self._failed)
        self._search_worker = Worker("search", self._failed)
        self._shelf_worker = Worker("shelf", self._failed)
        self._make_widgets()
        self.show_session()
        self._refresh()

    # what it is made of

    def _make_widgets(self) -> None:
        site = self._console.site
        self._address = site.registry_address or ""
        heading = markup.heading(self._address, site.name, self._console.mode, str(self._console.folder))
        self._search = ipywidgets.Text(
            description="Search", placeholder="name, name:tag or name@sha256:…", continuous_update=True
        ).add_class("rc-search")
        self._search.observe(lambda change: self._typed(change["new"]), "value")
        self._refresh_button = _button("Read again", self._refresh, "read the catalog again")
        self._state = ipywidgets.HTML()
        self._trouble = ipywidgets.HTML()
        self._found: Rows[Found] = Rows("Repositories", REPOSITORIES, self._lock, str, self._choose)
        self._tags: Rows[str] = Rows("Tags", TAGS, self._lock, self._line, self._choose_tag, self._read_on)
        self._tags.select.add_class("rc-columns")
        self._shelf_heading = ipywidgets.HTML()
        self._columns = ipywidgets.HTML()
        self._image = ipywidgets.HTML()
        self._delete_button = _button("Delete…", self._delete, "say what would go, and ask")
        self._retag_button = _button(
            "Tag…", self._open_form, "give this image another tag, here or in another repository"
        )
        self._collect_button = _button(
            "Collect garbage…", self._collect, "look for what no image needs any more, and ask"
        )
        self._untagged = ipywidgets.Checkbox(description="images without a tag, too", indent=False)
        self._to = ipywidgets.Text(description="Repository")
        self._as = ipywidgets.Text(description="Tag", placeholder="1.2.3")
        self._form_trouble = ipywidgets.HTML()
        self._form = ipywidgets.VBox(
            [
                self._to,
                self._as,
                self._form_trouble,
                _row(
                    _button("Tag it…", self._retag, "show what it would change, and ask"),
                    _button("Cancel", self._close_form, "close this form"),
                ),
            ]
        ).add_class("rc-panel")
        self._asked = ipywidgets.HTML()
        self._approve = _button("Approve", partial(self._answer, True), "do it", "danger")
        self._refuse = _button("Refuse", partial(self._answer, False), "do nothing")
        self._dismiss = _button("Close", self._close_result, "close this message")
        self._answers = _row(self._approve, self._refuse, self._dismiss)
        self._panel = ipywidgets.VBox([self._asked, self._answers]).add_class("rc-panel")
        self._log = ipywidgets.HTML()
        self._end_button = _button("End session", self._end, "end this session and close its record")
        self._ended = ipywidgets.HTML()
        self._actions = _row(self._delete_button, self._retag_button)
        left = ipywidgets.VBox([self._found.select, self._found.pager]).add_class("rc-left")
        right = ipywidgets.VBox(
            [
                self._shelf_heading,
                self._columns,
                self._tags.select,
                self._tags.pager,
                self._actions,
                self._form,
                self._panel,
                self._image,
            ]
        ).add_class("rc-right")
        self.widget = ipywidgets.VBox(
            [
                ipywidgets.HTML(markup.style()),
                _row(ipywidgets.HTML(heading), self._untagged, self._collect_button, self._end_button).add_class(
                    "rc-top"
                ),
                self._ended,
                _row(self._search, self._refresh_button, self._state).add_class("rc-searching"),
                self._trouble,
                ipywidgets.HBox([left, right]).add_class("rc-main"),
                ipywidgets.VBox([ipywidgets.HTML("<h2>Done in this session</h2>"), self._log]).add_class("rc-log"),
            ]
        ).add_class("rc-page")
        self._close_form()
        self._show_shelf()

    def stop(self) -> None:
        """Read nothing more."""
        for worker in self._workers:
            worker.close()

    def settle(self, seconds: float = 10.0) -> bool:
        """Wait until everything is read that was asked for; False where it is not after `seconds`."""
        return all(worker.settle(seconds) for worker in self._workers)

    @property
    def _workers(self) -> tuple[Worker, ...]:
        return self._catalog_worker, self._search_worker, self._shelf_worker

    def _failed(self, error: Exception) -> None:
        named = error if isinstance(error, RunbookError) else RunbookError(f"{type(error).__name__}: {error}")
        with self._lock:
            self._trouble.value = markup.trouble(named)
            self._reading = False

    # searching

    def _refresh(self) -> None:
        self._catalog_worker.ask(self._index.fill)

    def _catalog_changed(self) -> None:
        with self._lock:
            self._trouble.value = markup.trouble(self._index.catalog.error)
        self._search_again()

    def _search_again(self) -> None:
        self._search_worker.ask(partial(self._find, self._search.value, 0.0))

    def _typed(self, text: str) -> None:
        self._search_worker.ask(partial(self._find, text, DEBOUNCE))

    def _find(self, text: str, pause: float, turn: Turn) -> None:
        """Search, once nobody has typed for a while."""
        turn.pause(pause)
        query = Query.parse(text, self._address)
        catalog = self._index.catalog
        names = catalog.search(query)
        if query.digest is not None:
            found = [Found(name, query.digest) for name in names]
        elif query.tag is None:
            found = [Found(name) for name in names]
        else:
            found = self._index.tags(names, query, turn, partial(self._found_so_far, query, len(names)))
        turn.go_on()
        self._show_found(query, found, _told(query, found))

    def _found_so_far(self, query: Query, names: int, found: list[Found], looked: int) -> None:
        told = f"{plural(len(found), 'tag')} so far, in {looked:,} of {names:,} repositories …"
        self._show_found(query, found, told)

    def _show_found(self, query: Query, found: list[Found], told: str) -> None:
        with self._lock:
            stay = query == self._query
            self._query = query
            self._found.fill(found, self._marked(found), stay=stay)
            self._state.value = markup.state(self._index.catalog, told)

    def _marked(self, found: Sequence[Found]) -> Found | None:
        """The row of what is shown beside the list."""
        if self._shelf is None:
            return None
        tagged = Found(self._shelf.repository, self._tag)
        return tagged if tagged in found else Found(self._shelf.repository)

    # looking

    def _choose(self, found: Found) -> None:
        with self._lock:
            if self._shelf is None or self._shelf.repository != found.repository:
                self._look(found.repository, found.reference)
            elif found.reference is not None:
                self._choose_tag(found.reference)

    def _look(self, repository: str, reference: str | None = None) -> None:
        """Read a repository, from the registry as it is now, and show it; `reference` is chosen in it."""
        with self._lock:
            self._trouble.value = ""
            self._shelf = shelf = Shelf(repository)
            self._tag = reference
            self._reading = True
            self._close_form()
            self._tags.fill(())
            self._show_shelf()
        self._shelf_worker.ask(partial(self._read, shelf))

    def _read(self, shelf: Shelf, turn: Turn) -> None:
        reader = Reader(self._console.registry, shelf, turn, partial(self._shelf_changed, shelf))
        try:
            if not shelf.listed:
                reader.read_tags()
                with self._lock:
                    if self._tag is not None and self._tag not in shelf.tags:
                        self._tag = reader.add(self._tag)
                    if self._tag is not None:
                        self._tags.turn_to(self._tag)
            with self._lock:
                visible = tuple(self._tags.visible)
            reader.read_images(visible)
            reader.compare()
        except RunbookError as error:
            self._failed(error)
        with self._lock:
            self._reading = False
        self._shelf_changed(shelf)

    def _read_on(self) -> None:
        """Read what is on show and was not yet."""
        with self._lock:
            shelf = self._shelf
            if shelf is None:
                return
            self._reading = True
            self._show_shelf()
        self._shelf_worker.ask(partial(self._read, shelf))

    def _shelf_changed(self, shelf: Shelf) -> None:
        with self._lock:
            if shelf is self._shelf:
                self._tags.fill(shelf.tags, self._tag, stay=True)
                self._show_shelf()

    def _choose_tag(self, tag: str) -> None:
        with self._lock:
            self._tag = tag
            self._close_form()
            self._show_shelf()

    def _line(self, tag: str) -> str:
        """A row of the list of tags."""
        return _columns(*self._cells(tag))

    def _cells(self, tag: str) -> tuple[str, str, str, str, str, str]:
        shelf = self._shelf
        manifest = shelf.manifests.get(tag) if shelf else None
        if shelf is None or manifest is None:
            problem = shelf is not None and tag in shelf.problems
            return tag, "cannot be read" if problem else "…", "", "", "", ""
        layers = "index" if manifest.is_index else str(len(manifest.layers))
        created, same = markup.time(shelf.created(tag)), markup.listed(shelf.same(tag), 3)
        return (
            tag,
            manifest.digest.partition(":")[2][: markup.SHORT],
            size(manifest.total),
            layers,
            created,
            same,
        )

    def _show_shelf(self) -> None:
        shelf, tag = self._shelf, self._tag
        self._shelf_heading.value = markup.shelf_heading(shelf, self._reading)
        titles = _columns("tag", "digest", "size", "layers", "created (UTC)", "same image")
        self._columns.value = Markup('<div class="rc-columns-head" aria-hidden="true">{}</div>').format(titles)
        for part in (self._columns, self._tags.select, self._tags.pager):
            _visible(part, shelf is not None)
        chosen = shelf is not None and tag is not None
        self._image.value = markup.image(shelf, tag) if shelf is not None and tag is not None else ""
        _visible(self._actions, chosen)
        self._enable()

    # acting

    def _delete(self) -> None:
        with self._lock:
            if self._shelf is not None and self._tag is not None:
                self._act(Delete(self._shelf.repository, self._tag))

    def _retag(self) -> None:
        with self._lock:
            if self._shelf is None or self._tag is None:
                return
            try:
                to, tag = repository_name(self._to.value.strip()), tag_name(self._as.value.strip())
            except RunbookError as error:
                self._form_trouble.value = markup.trouble(error)
                return
            self._act(Retag(self._shelf.repository, self._tag, to, tag))

    def _collect(self) -> None:
        self._act(Collect(self._untagged.value))

    def _act(self, action: Action) -> None:
        with self._lock:
            self._close_form()
            self._result = None
        self._console.act(action)

    def acted(self, entry: Entry) -> None:
        """An action has ended: show how, and what is there now."""
        action = entry.action
        with self._lock:
            self._result = entry
            shelf, tag = self._shelf, self._tag
        match action:
            case Delete(repository=repository) | Retag(to=repository):
                self._index.forget_tags(repository)
                if isinstance(action, Retag) and entry.error is None:
                    self._index.add(repository)
                self._search_again()
                if shelf is not None and shelf.repository == repository:
                    self._look(repository, tag)
        self.show_session()

    def _open_form(self) -> None:
        with self._lock:
            if self._shelf is not None:
                self._to.value, self._as.value = self._shelf.repository, ""
                self._form_trouble.value = ""
                _visible(self._form, True)
                self._close_result()

    def _close_form(self) -> None:
        with self._lock:
            _visible(self._form, False)

    def _answer(self, approved: bool) -> None:
        with self._lock:
            question = self._question
        if question is not None:
            self._console.desk.answer(question, approved)

    def _close_result(self) -> None:
        with self._lock:
            self._result = None
        self.show_session()

    def _end(self) -> None:
        threading.Thread(target=self._console.end, name="end", daemon=True).start()

    # the session

    def show_session(self) -> None:
        """Show what is asked, under way, done."""
        console = self._console
        with self._lock:
            self._question = question = console.desk.question
            if question is not None:
                self._asked.value = markup.question(question)
            elif console.busy:
                self._asked.value = markup.under_way(console.entries[-1], console.doing)
            elif self._result is not None:
                self._asked.value = markup.ended(self._result)
            _visible(self._approve, question is not None)
            _visible(self._refuse, question is not None)
            _visible(self._dismiss, question is None and not console.busy)
            _visible(self._panel, question is not None or console.busy or self._result is not None)
            self._log.value = markup.log(console.entries)
            self._ended.value = markup.summary(console.summary) if console.summary else ""
            self._enable()

    def _enable(self) -> None:
        console = self._console
        idle = not console.busy and not console.ending
        for button in (self._delete_button, self._retag_button, self._collect_button, self._untagged):
            button.disabled = not idle
        for widget in (self._end_button, self._search, self._refresh_button, self._found.select, self._tags.select):
            widget.disabled = console.ending


def _told(query: Query, found: Sequence[Found]) -> str:
    if query.tag is not None:
        more = "; there are more: type more of the name" if len(found) == FOUND else ""
        return f"{plural(len(found), 'tag')} found{more}."
    if query.words or query.digest is not None:
        return f"{plural(len(found), 'repository matches', 'repositories match')}."
    return ""


def _columns(tag: str, digest: str, size: str, layers: str, created: str, same: str) -> str:
    line = f"{_fit(tag, 24):24}  {digest:14}  {size:>8}  {layers:>6}  {created:16}  {same}"
    return line.rstrip().replace(" ", _NBSP)


def _fit(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 7]}…{text[-6:]}"


def _button(label: str, pressed: Callable[[], None], tooltip: str, style: str = "") -> ipywidgets.Button:
    button = ipywidgets.Button(description=label, tooltip=tooltip, button_style=style)
    button.on_click(lambda _: pressed())
    return button


def _row(*widgets: ipywidgets.Widget) -> ipywidgets.HBox:
    return ipywidgets.HBox(list(widgets)).add_class("rc-row")


def _visible(widget: ipywidgets.DOMWidget, shown: bool) -> None:
    display = None if shown else "none"
    if widget.layout.display != display:
        widget.layout.display = display

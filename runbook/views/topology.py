"""The topology as a picture: which services there are, who talks to whom at which ports, and which host is what.

`topology(site)` is a pure function from parameters to SVG. The picture is self-contained and reads on light and on dark
pages. Its upper part shows services, not hosts, so that it stays as it is from 3 hosts to 300; the lower part has a
card for every host.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape

from runbook.site import HostParameters, Role, Site

WIDTH = 1000
MARGIN = 20
BOX = 74
"""Height of a service's box."""

COLOURS: dict[Role, str] = {
    "zookeeper": "#c77d0a",
    "mesos_master": "#2f6fdb",
    "mesos_slave": "#0e8f7e",
    "marathon": "#8a4fd3",
    "docker": "#1887b5",
    "registry": "#cf3f6b",
    "registry_web": "#b0527f",
}
"""One hue a role, in the boxes and on the hosts' cards; it stands out on white and on black."""

NAMES: dict[Role, str] = {
    "zookeeper": "ZooKeeper",
    "mesos_master": "Mesos master",
    "mesos_slave": "Mesos slave",
    "marathon": "Marathon",
    "docker": "Docker",
    "registry": "Registry",
    "registry_web": "Registry web",
}

# JupyterLab says by an attribute of the page whether it is dark; elsewhere the system's wish counts.
STYLE = """
.runbook-topology{--ink:#1f2328;--quiet:#59636e;--paper:#fff;--card:#f6f8fa;--line:#d1d9e0;background:var(--paper);
 font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif}
@media (prefers-color-scheme:dark){.runbook-topology{--ink:#e6edf3;--quiet:#9198a1;--paper:#0d1117;--card:#161b22;
 --line:#3d444d}}
[data-jp-theme-light=true] .runbook-topology{--ink:#1f2328;--quiet:#59636e;--paper:#fff;--card:#f6f8fa;--line:#d1d9e0}
[data-jp-theme-light=false] .runbook-topology{--ink:#e6edf3;--quiet:#9198a1;--paper:#0d1117;--card:#161b22;
 --line:#3d444d}
.runbook-topology text{fill:var(--ink);font-size:12px}
.runbook-topology .name{font-size:14px;font-weight:600}
.runbook-topology .quiet{fill:var(--quiet)}
.runbook-topology .port{font-size:11px;font-variant-numeric:tabular-nums;paint-order:stroke;stroke:var(--paper);
 stroke-width:5px;stroke-linejoin:round}
.runbook-topology .edge{fill:none;stroke:var(--quiet);stroke-width:1.3}
.runbook-topology .tip{fill:var(--quiet)}
.runbook-topology .card{fill:var(--card);stroke:var(--line)}
"""


@dataclass(frozen=True, repr=False)
class Topology:
    """The picture as the result of a notebook's cell."""

    site: Site

    @property
    def svg(self) -> str:
        """The picture."""
        return topology(self.site)

    def _repr_html_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        lines = [f"{host.name} ({host.address}): {', '.join(host.roles)}" for host in self.site.hosts]
        return "\n".join([f"{self.site.name}: {len(self.site.hosts)} hosts", *lines])


def topology(site: Site) -> str:
    """The picture of a site, as SVG text."""
    services = {role: _service(site, role) for role in _PLACES if site.having(role)}
    upper = 480 if "registry_web" in services else 400
    cards, height = _cards(site, upper + 10)
    described = "; ".join(f"{host.name}: {', '.join(host.roles)}" for host in site.hosts)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="runbook-topology" role="img" width="100%" '
        f'style="max-width:{WIDTH}px" viewBox="0 0 {WIDTH} {height}" preserveAspectRatio="xMidYMin meet">',
        f"<title>Topology of {escape(site.name)}</title><desc>{escape(described)}</desc><style>{STYLE}</style>",
        '<defs><marker id="runbook-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto-start-reverse"><path class="tip" d="M0 0 8 4 0 8z"/></marker></defs>',
        _people(),
        *_edges(site),
        *services.values(),
        *cards,
        "</svg>",
    ]
    return "\n".join(parts)


# services

_PLACES: dict[Role, tuple[int, int, int]] = {
    "marathon": (MARGIN, 140, 180),
    "mesos_master": (270, 140, 180),
    "mesos_slave": (520, 140, 180),
    "docker": (770, 140, 160),
    "zookeeper": (MARGIN, 300, 680),
    "registry": (770, 275, 160),
    "registry_web": (770, 395, 160),
}
"""Left edge, top edge and width of each service's box."""


def _says(site: Site, role: Role) -> str:
    """The second line of a service's box: its ports, and what it does among its own."""
    zookeeper, marathon = site.zookeeper, site.marathon
    return {
        "zookeeper": f"{zookeeper.client_port} for clients; among members {zookeeper.quorum_port} to the leader, "
        f"{zookeeper.election_port} for elections",
        "mesos_master": f"{site.mesos.master.port}, also among masters",
        "mesos_slave": f"{site.mesos.slave.port}",
        "marathon": f"{marathon.http_port}",
        "docker": "containers of tasks",
        "registry": f"{site.registry.port}",
        "registry_web": f"{site.registry_web.port}",
    }[role]


def _service(site: Site, role: Role) -> str:
    left, top, width = _PLACES[role]
    hosts = site.having(role)
    names = ", ".join(host.name for host in hosts)
    where = names if len(names) * 6.6 < width - 24 else f"{len(hosts)} hosts"
    colour = COLOURS[role]
    return (
        f'<g><rect x="{left}" y="{top}" width="{width}" height="{BOX}" rx="8" fill="{colour}" fill-opacity=".13" '
        f'stroke="{colour}" stroke-width="1.5"/>'
        f'<text class="name" x="{left + 12}" y="{top + 24}">{NAMES[role]}</text>'
        f'<text x="{left + 12}" y="{top + 43}">{escape(_says(site, role))}</text>'
        f'<text class="quiet" x="{left + 12}" y="{top + 61}">{escape(where)}</text></g>'
    )


def _people() -> str:
    return (
        f'<g><rect class="card" x="{MARGIN}" y="16" width="{WIDTH - 2 * MARGIN}" height="42" rx="8"/>'
        f'<text class="name" x="{MARGIN + 12}" y="42">People and this runbook</text>'
        f'<text class="quiet" x="{MARGIN + 214}" y="42">browsers and HTTP at the ports below; SSH to every host</text>'
        "</g>"
    )


# who talks to whom


def _edges(site: Site) -> Iterator[str]:
    """The arrows, from whoever opens the connection, each with the port that it goes to."""
    has = {role: bool(site.having(role)) for role in _PLACES}
    mesos, client_port = site.mesos, str(site.zookeeper.client_port)
    visits: dict[Role, str] = {
        "marathon": str(site.marathon.http_port),
        "mesos_master": str(mesos.master.port),
        "mesos_slave": f"{mesos.slave.port} sandboxes",
    }
    for role, label in visits.items():
        if has[role]:
            yield from _down(_middle(role), PEOPLE, _PLACES[role][1], label)
        if has[role] and has["zookeeper"]:
            yield from _down(_middle(role), _PLACES[role][1] + BOX, _PLACES["zookeeper"][1], client_port)
    if has["marathon"] and has["mesos_master"]:
        libprocess = str(site.marathon.libprocess_port or "any port")
        yield from _pair("marathon", "mesos_master", str(mesos.master.port), libprocess)
    if has["mesos_master"] and has["mesos_slave"]:
        yield from _pair("mesos_master", "mesos_slave", str(mesos.slave.port), str(mesos.master.port))
    middle, docker, registry, web = _middle("docker"), *(_PLACES[role][1] for role in _RIGHT)
    if has["mesos_slave"] and has["docker"]:
        left, right, y = _PLACES["mesos_slave"][0] + _PLACES["mesos_slave"][2], _PLACES["docker"][0], docker + BOX // 2
        yield _line(f"M{left} {y}H{right - 2}")
        yield _label((left + right) // 2, y - 7, "socket", "middle")
        yield _line(f"M{middle} {PEOPLE}V{docker - 2}")
        tasks = str(mesos.slave.ports).strip("[]").replace(",", ", ")
        yield _label(middle - 7, PEOPLE + 22, f"tasks: {tasks}", "end")
    if has["docker"] and has["registry"]:
        yield from _down(middle, docker + BOX, registry, f"{site.registry.port} pull, push")
    if has["registry_web"]:
        edge, side = WIDTH - MARGIN - 10, _PLACES["registry_web"][0] + _PLACES["registry_web"][2]
        yield _line(f"M{edge} {PEOPLE}V{web + BOX // 2}H{side + 2}")
        yield _label((edge + side) // 2, web + BOX // 2 - 7, str(site.registry_web.port), "middle")
    if has["registry_web"] and has["registry"]:
        yield _line(f"M{middle} {web}V{registry + BOX + 2}")
        yield _label(middle + 7, (registry + BOX + web) // 2 + 4, str(site.registry.port))


PEOPLE = 58
"""Lower edge of the people's box."""

_RIGHT: tuple[Role, ...] = ("docker", "registry", "registry_web")


def _middle(role: Role) -> int:
    left, _, width = _PLACES[role]
    return left + width // 2


def _down(x: int, top: int, bottom: int, label: str) -> Iterator[str]:
    yield _line(f"M{x} {top}V{bottom - 2}")
    yield _label(x + 7, (top + bottom) // 2 + 4, label)


def _pair(left: Role, right: Role, forth: str, back: str) -> Iterator[str]:
    """Arrows both ways between neighbours, each with the port that it goes to."""
    begin, end = _PLACES[left][0] + _PLACES[left][2], _PLACES[right][0]
    y = _PLACES[left][1] + BOX // 2
    yield _line(f"M{begin} {y - 9}H{end - 2}")
    yield _label((begin + end) // 2, y - 16, forth, "middle")
    yield _line(f"M{end} {y + 9}H{begin + 2}")
    yield _label((begin + end) // 2, y + 25, back, "middle")


def _line(path: str) -> str:
    return f'<path class="edge" d="{path}" marker-end="url(#runbook-tip)"/>'


def _label(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text class="port" x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


# hosts


def _cards(site: Site, top: int) -> tuple[list[str], int]:
    """A card a host, in rows, and the height at which they end."""
    columns = min(4, max(3, math.isqrt(len(site.hosts))))
    gap = 14
    width = (WIDTH - 2 * MARGIN - (columns - 1) * gap) // columns
    parts: list[str] = []
    for begin in range(0, len(site.hosts), columns):
        row = [_card(host, width) for host in site.hosts[begin : begin + columns]]
        height = max(tall for _, tall in row)
        for column, (content, _) in enumerate(row):
            left = MARGIN + column * (width + gap)
            frame = f'<rect class="card" width="{width}" height="{height}" rx="8"/>'
            parts.append(f'<g transform="translate({left} {top})">{frame}{content}</g>')
        top += height + gap
    return parts, top + MARGIN - gap


def _card(host: HostParameters, width: int) -> tuple[str, int]:
    """One host's card, without its frame, and its height."""
    parts = [
        f'<text class="name" x="12" y="25">{escape(host.name)}</text>'
        f'<text class="quiet" x="{width - 12}" y="25" text-anchor="end">{escape(host.address)}</text>'
    ]
    x, y = 12, 38
    for text, colour in _chips(host):
        size = round(len(text) * 6.3) + 16
        if x + size > width - 8 and x > 12:
            x, y = 12, y + 28
        parts.append(
            f'<rect x="{x}" y="{y}" width="{size}" height="22" rx="11" fill="{colour}" fill-opacity=".16" '
            f'stroke="{colour}" stroke-opacity=".6"/><text x="{x + size / 2:g}" y="{y + 15}" text-anchor="middle">'
            f"{escape(text)}</text>"
        )
        x += size + 6
    return "".join(parts), y + 34


def _chips(host: HostParameters) -> Iterable[tuple[str, str]]:
    for role in host.roles:
        text = f"{NAMES[role]} {host.myid}" if role == "zookeeper" else NAMES[role]
        yield text, COLOURS[role]

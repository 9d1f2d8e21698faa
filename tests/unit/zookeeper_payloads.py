"""What real ZooKeepers answered and wrote (tests/payloads/zookeeper-*), and a site of three members."""

from __future__ import annotations

from pathlib import Path

from runbook.site import Site

PAYLOADS = Path(__file__).parent.parent / "payloads"


def said(name: str) -> str:
    """A recorded text, for instance `zookeeper-3.8/leader.srvr.txt`."""
    return (PAYLOADS / name).read_text()


def site(members: int = 3, more: str = "") -> Site:
    """A site of ZooKeepers node1, node2, … in the document's folders."""
    hosts = "\n".join(
        f"  - {{name: node{n}, address: 198.51.100.{10 + n}, roles: [zookeeper]}}" for n in range(1, members + 1)
    )
    return Site.parse(f"name: test\nhosts:\n{hosts}\nzookeeper: {{allow_even: true}}\n{more}", Path("test.yml"))

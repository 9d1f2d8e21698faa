"""A site as the document's, with an image of MySQL, for the tests of chapter 6."""

from __future__ import annotations

from pathlib import Path

from runbook.site import Site

_TEXT = """\
name: test
hosts:
  - {name: node1, address: 198.51.100.11, roles: [zookeeper, mesos_master, mesos_slave, marathon, docker]}
  - {name: node2, address: 198.51.100.12, roles: [zookeeper, mesos_master, mesos_slave, marathon, docker]}
  - {name: node3, address: 198.51.100.13, roles: [zookeeper, mesos_master, mesos_slave, marathon, docker]}
images:
  mysql: {tag: "mysql:5.7.13", file: mysql.tar, sha256: "%s"}
mysql: {host: node2, root_password: "env:TEST_MYSQL_ROOT", password: "env:TEST_MYSQL"%s}
"""


def site(mysql: str = "", more: str = "") -> Site:
    """Three hosts that are everything, the data on node2. `mysql` is added to that section, `more` to the file."""
    return Site.parse(_TEXT % ("0" * 64, mysql and f", {mysql}") + more, Path("/somewhere/test.yml"))

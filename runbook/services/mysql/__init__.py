"""MySQL as a Docker task of Marathon (document 6), in the order in which one would look for it.

- `app`: the app's definition, and what its host must hold: image, data folder, passwords.
- `conditions`: what keeps it from starting (6.3), looked at beforehand.
- `host`: what the data's host tells: image, folder, containers.
- `client`: PyMySQL from here, and the client in the container; what goes wrong is a named error.
- `checks`: where it runs, and whether clients agree (6.4).
- `proof`: the row that outlives its container.
- `diagnosis`: why it does not run, or lets nobody in.
- `chapter`: chapter 6, which its notebook opens.
"""

from runbook.services.mysql.app import data_host, mysql_app
from runbook.services.mysql.chapter import MySql
from runbook.services.mysql.client import Account, Catalog, Server

__all__ = ["Account", "Catalog", "MySql", "Server", "data_host", "mysql_app"]

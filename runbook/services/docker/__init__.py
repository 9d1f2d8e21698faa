"""Docker: all that the runbook knows of a site's Docker hosts.

- `engine`: the package, the service and its unit; what an engine says of itself (document 5.1, 5.2).
- `daemon`: what a host's daemon tells of itself and of what runs; `returned`: whether that runs again after a restart.
- `images`: which host needs which image of the parameters, and which it has (5.3).
- `ps`: what runs on each host, of which task it is, and what it logs (5.3).
- `diagnose`: why containers do not start or stay, from what their hosts say.
- `chapter`: chapter 5, which its notebook opens.
"""

from runbook.services.docker.chapter import DockerHosts
from runbook.services.docker.diagnose import explain
from runbook.services.docker.engine import RESTART, DockerService, restart_gently
from runbook.services.docker.ps import containers, logs

__all__ = ["RESTART", "DockerHosts", "DockerService", "containers", "explain", "logs", "restart_gently"]

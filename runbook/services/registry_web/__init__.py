"""The registry's web page: all that the runbook knows of it.

- `page`: what the page lists, as a browser gets it, and whether that is what the registry lists (document 8.2).
- `container`: the page's image and container, and the variables that its version reads (8.1, 8.2).
- `diagnose`: whether page, registry, network or variables are at fault, from what their hosts say (8.3.2).
- `chapter`: chapter 8, which its notebook opens.
"""

from runbook.services.registry_web.chapter import RegistryWeb

__all__ = ["RegistryWeb"]

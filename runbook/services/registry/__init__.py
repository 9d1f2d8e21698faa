"""The private registry: all that the runbook knows of it.

- `client`: `Registry`: catalog and tags over pages, manifests and blobs verified, deletions, tags put anew.
- `auth`: how it is shown who asks; `refusals`: what its refusals mean; `names`: the grammar of names and digests.
- `manifests`: manifests of images and indexes, and images' configurations.
- `tables`: `survey` what it holds, and the tables made of that.

And what is done about it on hosts (document 7), which is not imported here:

- `trust`: whom each host's Docker trusts, and the steps by which it trusts the site's registry.
- `steps`: the registry's container, and its files with TLS; `certificate`: which certificates Docker would refuse.
- `transfer`: images pushed, pulled, and found on the registry's disk; `diagnose`: why that fails.
- `garbage`: what could be freed, and how it is collected.
- `chapter`: chapter 7, which its notebook opens.
"""

from runbook.services.registry.client import Registry, RegistryFacts
from runbook.services.registry.manifests import Descriptor, History, ImageConfig, Manifest
from runbook.services.registry.tables import (
    Survey,
    Tagged,
    history_table,
    layers_table,
    repositories_table,
    survey,
    tags_table,
)

__all__ = [
    "Descriptor",
    "History",
    "ImageConfig",
    "Manifest",
    "Registry",
    "RegistryFacts",
    "Survey",
    "Tagged",
    "history_table",
    "layers_table",
    "repositories_table",
    "survey",
    "tags_table",
]

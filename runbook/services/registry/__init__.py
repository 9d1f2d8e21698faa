"""The private registry: all that the runbook knows of it.

- `client`: `Registry`: catalog and tags over pages, manifests and blobs verified, deletions, tags put anew.
- `auth`: how it is shown who asks; `refusals`: what its refusals mean; `names`: the grammar of names and digests.
- `manifests`: manifests of images and indexes, and images' configurations.
- `tables`: `survey` what it holds, and the tables made of that.
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

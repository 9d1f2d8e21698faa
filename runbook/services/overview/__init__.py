"""Chapter 0: the planned cluster and the state of its hosts. `chapter`: the notebook's methods; `preflight`: whether
each host is fit for its roles."""

from runbook.services.overview.chapter import Overview

__all__ = ["Overview"]

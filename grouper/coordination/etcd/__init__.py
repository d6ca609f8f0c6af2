"""The engine of several machines: etcd, spoken to by its JSON gateway with an HTTP client that knows trio."""

from __future__ import annotations

from .store import EtcdStore, from_url

__all__ = ["EtcdStore", "from_url"]

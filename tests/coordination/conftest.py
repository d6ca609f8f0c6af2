"""Every test here can ask for `meeting`."""

from __future__ import annotations

from .meeting import etcd, meeting

__all__ = ["etcd", "meeting"]

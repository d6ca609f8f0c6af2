"""Every test here can ask for `meeting`."""

from __future__ import annotations

from .meeting import etcd as etcd
from .meeting import meeting as meeting

"""The tests of wait groups ask for a store of each kind, or for the command on a file."""

from __future__ import annotations

from tests.cli.conftest import command, start, url
from tests.coordination.meeting import etcd, meeting

__all__ = ["command", "etcd", "meeting", "start", "url"]

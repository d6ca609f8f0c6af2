"""Ready-made runners.

A first stop signal lets what is under way finish; a second one cuts it, which is a clean exit too. None of them has a time limit
of its own: a member's `grace` bounds how long it may take.
"""

from __future__ import annotations

from .http import HTTPServer
from .periodic import Cleanup, Periodic
from .tcp import TCPServer
from .thread import Threaded

__all__ = ["Cleanup", "HTTPServer", "Periodic", "TCPServer", "Threaded"]

"""Is it there yet: one question (`probe`), the same question until the answer is yes (`poll`), and checks ready to be asked.

A check is an async callable without arguments. It returns when what it looks at is ready, raises `grouper.NotReady` when it is
not yet, and anything else it raises is its own error. `poll(tcp("127.0.0.1", 5432), timeout=60)` can be awaited as it is, and is
itself an async callable without arguments: what a member's `ready_when` takes, what the body of a job is, and a check again.
"""

from __future__ import annotations

from .checks import FileCheck, HTTPCheck, HTTPClient, HTTPResponse, TCPCheck, UnixCheck, file, http, tcp, unix
from .commands import CommandCheck, command
from .errors import CheckError, CheckFailed, CheckTimeout
from .logs import LogLineCheck, log_line
from .probes import Check, PerPoll, Poll, Probe, poll, probe

__all__ = [
    "Check",
    "CheckError",
    "CheckFailed",
    "CheckTimeout",
    "CommandCheck",
    "FileCheck",
    "HTTPCheck",
    "HTTPClient",
    "HTTPResponse",
    "LogLineCheck",
    "PerPoll",
    "Poll",
    "Probe",
    "TCPCheck",
    "UnixCheck",
    "command",
    "file",
    "http",
    "log_line",
    "poll",
    "probe",
    "tcp",
    "unix",
]

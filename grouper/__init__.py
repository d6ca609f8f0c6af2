"""An init for a Python program: one tree that starts, watches and stops everything the program runs.

The names below are the tree's; those of a subsystem come from its package. They are imported when they are first used, so that
`import grouper` alone is light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .backoff import Backoff as Backoff
    from .errors import CascadeNeeded as CascadeNeeded
    from .errors import CycleError as CycleError
    from .errors import DoNotRestart as DoNotRestart
    from .errors import DuplicateNames as DuplicateNames
    from .errors import ExitedBeforeReady as ExitedBeforeReady
    from .errors import GraphError as GraphError
    from .errors import GroupClosed as GroupClosed
    from .errors import MemberKilled as MemberKilled
    from .errors import NotReady as NotReady
    from .errors import ReadyTimeout as ReadyTimeout
    from .errors import RestartLimitExceeded as RestartLimitExceeded
    from .errors import StopTimeout as StopTimeout
    from .errors import TerminateTree as TerminateTree
    from .errors import UnknownDependency as UnknownDependency
    from .events import EntranceEvent as EntranceEvent
    from .events import Event as Event
    from .events import EventStream as EventStream
    from .events import ExitEvent as ExitEvent
    from .events import RestartEvent as RestartEvent
    from .events import StartEvent as StartEvent
    from .exit import ErrorTrace as ErrorTrace
    from .exit import Exit as Exit
    from .groups.client import Client as Client
    from .groups.client import MemberEntrance as MemberEntrance
    from .groups.client import MemberExit as MemberExit
    from .groups.dynamic import Dynamic as Dynamic
    from .groups.static import Graph as Graph
    from .groups.static import Ordered as Ordered
    from .groups.static import Parallel as Parallel
    from .groups.static import QueueOrdered as QueueOrdered
    from .main import Sigmon as Sigmon
    from .main import background as background
    from .main import invoke as invoke
    from .main import run as run
    from .main import tree_of as tree_of
    from .member import Member as Member
    from .member import Role as Role
    from .process import Process as Process
    from .restart import Restart as Restart
    from .restart import Restarter as Restarter
    from .restart import RestartType as RestartType
    from .restart import Strategy as Strategy
    from .restart import restart_on as restart_on
    from .runner import Proxy as Proxy
    from .runner import Runner as Runner
    from .runner import RunnerLike as RunnerLike
    from .runner import Startable as Startable
    from .runners.http import HTTPServer as HTTPServer
    from .runners.periodic import Cleanup as Cleanup
    from .runners.periodic import Periodic as Periodic
    from .runners.tcp import TCPServer as TCPServer
    from .runners.thread import Threaded as Threaded
    from .signals import Signals as Signals
    from .snapshot import Snapshot as Snapshot
    from .snapshot import Unstopped as Unstopped
    from .state import State as State

__version__ = "0.1.0"

__all__ = [
    "Backoff",
    "CascadeNeeded",
    "Cleanup",
    "Client",
    "CycleError",
    "DoNotRestart",
    "DuplicateNames",
    "Dynamic",
    "EntranceEvent",
    "ErrorTrace",
    "Event",
    "EventStream",
    "Exit",
    "ExitEvent",
    "ExitedBeforeReady",
    "Graph",
    "GraphError",
    "GroupClosed",
    "HTTPServer",
    "Member",
    "MemberEntrance",
    "MemberExit",
    "MemberKilled",
    "NotReady",
    "Ordered",
    "Parallel",
    "Periodic",
    "Process",
    "Proxy",
    "QueueOrdered",
    "ReadyTimeout",
    "Restart",
    "RestartEvent",
    "RestartLimitExceeded",
    "RestartType",
    "Restarter",
    "Role",
    "Runner",
    "RunnerLike",
    "Sigmon",
    "Signals",
    "Snapshot",
    "StartEvent",
    "Startable",
    "State",
    "StopTimeout",
    "Strategy",
    "TCPServer",
    "TerminateTree",
    "Threaded",
    "UnknownDependency",
    "Unstopped",
    "background",
    "invoke",
    "restart_on",
    "run",
    "tree_of",
]

_PLACES: Final = {
    "backoff": ("Backoff",),
    "errors": (
        "CascadeNeeded",
        "DoNotRestart",
        "RestartLimitExceeded",
        "TerminateTree",
        "CycleError",
        "DuplicateNames",
        "ExitedBeforeReady",
        "GraphError",
        "GroupClosed",
        "MemberKilled",
        "NotReady",
        "ReadyTimeout",
        "StopTimeout",
        "UnknownDependency",
    ),
    "events": ("EntranceEvent", "Event", "EventStream", "ExitEvent", "RestartEvent", "StartEvent"),
    "exit": ("ErrorTrace", "Exit"),
    "groups.client": ("Client", "MemberEntrance", "MemberExit"),
    "groups.dynamic": ("Dynamic",),
    "groups.static": ("Graph", "Ordered", "Parallel", "QueueOrdered"),
    "main": ("Sigmon", "background", "invoke", "run", "tree_of"),
    "member": ("Member", "Role"),
    "process": ("Process",),
    "snapshot": ("Snapshot", "Unstopped"),
    "state": ("State",),
    "restart": ("Restart", "RestartType", "Restarter", "Strategy", "restart_on"),
    "runner": ("Proxy", "Runner", "RunnerLike", "Startable"),
    "runners.http": ("HTTPServer",),
    "runners.periodic": ("Cleanup", "Periodic"),
    "runners.tcp": ("TCPServer",),
    "runners.thread": ("Threaded",),
    "signals": ("Signals",),
}
_PLACE_OF: Final = {name: place for place, names in _PLACES.items() for name in names}


if not TYPE_CHECKING:  # else every name would exist for a type checker

    def __getattr__(name: str) -> object:
        place = _PLACE_OF.get(name)
        if place is None:
            raise AttributeError(f"module 'grouper' has no attribute {name!r}")
        value: object = getattr(importlib.import_module(f".{place}", __name__), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACE_OF])

"""What tests of runners are written with: a runner that the test drives, a check of the runner contract, fixtures for pytest.

The names are imported when they are first used: pytest imports this package in every project of the environment, for its plugin.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .check import ContractBroken as ContractBroken
    from .check import Violation as Violation
    from .check import check_runner as check_runner
    from .fake import FakeRun as FakeRun
    from .fake import FakeRunner as FakeRunner
    from .starting import StartRunner as StartRunner

__all__ = ["ContractBroken", "FakeRun", "FakeRunner", "StartRunner", "Violation", "check_runner"]

_PLACE_OF: Final = {
    "ContractBroken": "check",
    "FakeRun": "fake",
    "FakeRunner": "fake",
    "StartRunner": "starting",
    "Violation": "check",
    "check_runner": "check",
}


if not TYPE_CHECKING:  # pragma: no branch  # for type checkers, a module with a __getattr__ has every name

    def __getattr__(name: str) -> object:
        place = _PLACE_OF.get(name)
        if place is None:
            raise AttributeError(f"module 'grouper.testing' has no attribute {name!r}")
        value: object = getattr(importlib.import_module(f".{place}", __name__), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACE_OF])

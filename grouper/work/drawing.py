"""A graph of jobs, drawn."""

from __future__ import annotations

from typing import Any, Protocol

from .job import Job

__all__ = ["as_mermaid", "as_text"]


class Drawn(Protocol):
    """What is drawn of a report."""

    def __iter__(self) -> Any: ...
    def __getitem__(self, name: str, /) -> Job[Any]: ...
    def after(self, name: str, /) -> tuple[str, ...]: ...


def as_text(report: Drawn) -> str:
    """A line for each job: its state, its name, what it is after, and why it is where it is."""
    raise NotImplementedError


def as_mermaid(report: Drawn) -> str:
    """A flowchart."""
    raise NotImplementedError

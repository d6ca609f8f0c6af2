"""A graph of jobs, drawn: as lines of text, and as a Mermaid flowchart.

Names and errors are what users made them, so both drawings escape them. In a Mermaid label that means nearly everything but
letters and digits: a label is looked through for the entities that escape things, then for Markdown ("1. build" is a list, which it
refuses to draw, and so is a link, "example.com"), then for HTML. All that an entity stands for is safe from all three.

A graph is read once, job by job, and can go on meanwhile: what is drawn of a job, and counted, is its state in that moment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, Protocol

from .job import Job

__all__ = ["as_mermaid", "as_text", "counted", "one_line"]

STATES: Final = {
    "success": ("success", "#c8e6c9", "#2e7d32"),
    "running": ("running", "#bbdefb", "#1565c0"),
    "trying again": ("tryingAgain", "#d1c4e9", "#4527a0"),
    "waiting": ("waiting", "#eceff1", "#607d8b"),
    "failed": ("failed", "#ffcdd2", "#c62828"),
    "not ready": ("notReady", "#ffe0b2", "#ef6c00"),
    "skipped": ("skipped", "#fff9c4", "#9e9d24"),
    "cancelled": ("cancelled", "#f8bbd0", "#ad1457"),
    "unknown": ("unknown", "#cfd8dc", "#37474f"),
}
"""What a job's `state` can be, in the order in which they are counted: the name of its class in a flowchart, fill, border."""

NAMED: Final = 8
"""How many of those that a job is after are named in its line."""

WIDEST: Final = 32
"""Up to which length of a name what follows it is aligned, in characters."""

LONGEST: Final = 200
"""How much of an error is told, in characters."""

ESCAPED: Final = re.compile(r"(?<![^\W_])[_/-]|[_/-](?![^\W_])|(?<!\S) | (?!\S)|[^\w /-]")
"""What a label cannot have as it is: all but letters and digits, and between two of them `_`, `/` or `-`; spaces between words."""


class Drawn(Protocol):
    """What is drawn of a report."""

    @property
    def timed_out(self) -> bool: ...
    def __iter__(self) -> Iterator[str]: ...
    def __getitem__(self, name: str, /) -> Job[Any]: ...
    def after(self, name: str, /) -> tuple[str, ...]: ...


def as_text(report: Drawn) -> str:
    """A line for each job: its state, how long it ran, its name, what it is after, and why it is where it is."""
    rows: list[tuple[str, str, str, str]] = []
    counts: dict[str, int] = {}
    for name, befores in _in_order(report):
        job = report[name]
        state, started, ended = job.state, job.started, job.ended
        counts[state] = counts.get(state, 0) + 1
        took = "" if started is None or ended is None else _seconds(ended - started)
        tries = f"{job.attempts} attempts" if job.attempts > 1 else ""
        more = "; ".join(filter(None, (_after(befores), tries, _why(job, state))))
        rows.append((state, took, one_line(name), more))
    states = max((len(row[0]) for row in rows), default=0)
    times = max((len(row[1]) for row in rows), default=0)
    names = min(max((len(row[2]) for row in rows), default=0), WIDEST)
    lines: list[str] = []
    for state, took, name, more in rows:
        columns = (f"{state:<{states}}", f"{took:>{times}}", f"{name:<{names}}", more)
        lines.append("  ".join(filter(None, columns)).rstrip())
    told = counted(counts)
    lines.append(f"{len(rows)} job{'' if len(rows) == 1 else 's'}{': ' if told else ''}{told}{_late(report)}")
    return "\n".join(lines)


def as_mermaid(report: Drawn) -> str:
    """A flowchart: a box for each job with its name and its state, which it is coloured by."""
    places = {name: place for place, name in enumerate(report)}
    lines = ["flowchart TD"]
    edges: list[str] = []
    classes: dict[str, list[str]] = {}
    for name, place in places.items():
        state = report[name].state
        classes.setdefault(state, []).append(f"n{place}")
        lines.append(f'    n{place}["{_label(name)}<br/>{state}"]')
        edges.extend(f"    n{places[before]} --> n{place}" for before in report.after(name))
    lines.extend(edges)
    for state, (style, fill, border) in STATES.items():
        if state in classes:
            lines.append(f"    classDef {style} fill:{fill},stroke:{border},color:#212121")
            lines.append(f"    class {','.join(classes[state])} {style}")
    return "\n".join(lines) + "\n"


def counted(counts: dict[str, int]) -> str:
    """How many are in each state, in words: "3 success, 1 failed"."""
    return ", ".join(f"{counts[state]} {state}" for state in STATES if counts.get(state))


def one_line(text: str, most: int | None = None) -> str:
    """The text with what would leave its line, or the terminal's control, escaped as in Python; `most` characters of it."""
    if not text.isprintable():
        text = "".join([each if each.isprintable() else repr(each)[1:-1] for each in text])
    return text if most is None or len(text) <= most else text[: most - 3] + "..."


def _in_order(report: Drawn) -> list[tuple[str, tuple[str, ...]]]:
    """Each with those that it is after, which come before it; else in the order in which they were given."""
    after = {name: report.after(name) for name in report}
    found: dict[str, tuple[str, ...]] = {}
    for name in after:
        todo = [name]
        while todo:
            here = todo[-1]
            missing = [] if here in found else [before for before in after[here] if before not in found]
            if missing:
                todo.extend(reversed(missing))
            else:
                found.setdefault(todo.pop(), after[here])
    return list(found.items())


def _after(befores: tuple[str, ...]) -> str:
    if not befores:
        return ""
    more = f" and {len(befores) - NAMED} more" if len(befores) > NAMED else ""
    return f"after {', '.join(map(one_line, befores[:NAMED]))}{more}"


def _why(job: Job[Any], state: str) -> str:
    error = job.error
    if state == "skipped":
        return "its `when` said no" if job.blame is None else f"because of {one_line(job.blame.name)}"
    if error is None or state == "success":
        return ""
    text = _text(error)
    if state != "not ready":
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if state in ("failed", "not ready") else f"last try: {text}"


def _text(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # a user's class
        return ""
    return one_line(" ".join(text[: 10 * LONGEST].split()), LONGEST)


def _seconds(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _late(report: Drawn) -> str:
    return "; timed out" if report.timed_out else ""


def _label(name: str) -> str:
    return ESCAPED.sub(lambda found: f"#{ord(found[0])};", one_line(name))

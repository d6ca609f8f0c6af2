"""The words of a command line as values, and durations as words."""

from __future__ import annotations

import argparse
import re
from typing import Final

__all__ = ["age", "duration", "from_one", "from_zero", "lasting", "lifetime", "url", "word"]

LONGEST: Final = 1e10
"""Seconds, which no store takes: more than 300 years."""

UNITS: Final = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
NUMBER: Final = r"\d+(?:\.\d*)?|\.\d+"
PART: Final = rf"({NUMBER})(ms|[dhms])"


def duration(text: str) -> float:
    """The seconds of `90`, `1.5`, `250ms`, `30s`, `5m`, `1h30m`, `2d`. Raises: argparse.ArgumentTypeError."""
    seconds: float | None = None
    if re.fullmatch(NUMBER, text, re.ASCII):
        seconds = float(text)
    elif text and not re.sub(PART, "", text, flags=re.ASCII):
        seconds = sum(float(number) * UNITS[unit] for number, unit in re.findall(PART, text))
    if seconds is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration: write 30s, 5m, 1h30m, 250ms, or seconds")
    if seconds >= LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is longer than a store can keep: leave it out for ever")
    return seconds


def lifetime(text: str) -> float:
    """A duration that is not zero. Raises: argparse.ArgumentTypeError."""
    seconds = duration(text)
    if not seconds:
        raise argparse.ArgumentTypeError(f"{text!r} is no time at all: write 30s, 5m, 1h30m, 250ms, or seconds")
    return seconds


def from_zero(text: str) -> int:
    """A whole number of 0 or more. Raises: argparse.ArgumentTypeError."""
    return _whole(text, 0)


def from_one(text: str) -> int:
    """A whole number of 1 or more. Raises: argparse.ArgumentTypeError."""
    return _whole(text, 1)


def _whole(text: str, least: int) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,100}", text) or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of {least} or more")
    return int(text)


def word(text: str) -> str:
    """What a store can keep as a token or the id of a ticket. Raises: argparse.ArgumentTypeError."""
    if not text or len(text) > 253 or not text.isprintable():
        raise argparse.ArgumentTypeError("it is 1 to 253 characters that print")
    return text


def url(text: str) -> str:
    """The URL of a store, which is not left empty by an unset variable. Raises: argparse.ArgumentTypeError."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty: write sqlite:PATH or etcd://HOST:2379/PREFIX, or leave --store out")
    return text


def lasting(seconds: float) -> str:
    """A duration as the flags take it: `1h30m`, `250ms`."""
    if seconds < 1:
        return f"{seconds * 1000:.3f}".rstrip("0").rstrip(".") + "ms" if seconds else "0s"
    text = ""
    for unit, name in ((86400, "d"), (3600, "h"), (60, "m")):
        if count := int(seconds // unit):
            text += f"{count}{name}"
        seconds -= count * unit
    return text + (f"{seconds:g}s" if (seconds := round(seconds, 3)) else "")


def age(seconds: float) -> str:
    """A duration in the past, in two units at most: `2d3h`, `5m12s`."""
    whole = max(0, int(seconds))
    for unit, least in ((86400, 3600), (3600, 60)):
        if whole >= unit:
            whole -= whole % least
    return lasting(whole)

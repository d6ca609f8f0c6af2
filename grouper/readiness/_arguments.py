"""What the ready-made checks are given, looked at before anything runs."""

from __future__ import annotations

import os

__all__ = ["plain_path"]


def plain_path(path: str | os.PathLike[str], who: str) -> str:
    """The path as a string. Raises: TypeError or ValueError that names `who`."""
    given = path if isinstance(path, str) or not isinstance(path, os.PathLike) else os.fspath(path)
    if not isinstance(given, str):
        raise TypeError(f"{who}: {path!r} is not a path: give a str or a pathlib.Path")
    if not given:
        raise ValueError(f"{who}: the path is empty")
    return given

"""What goes over the wire: requests and answers of etcd's JSON gateway.

Keys and values are base64 there, and 64-bit numbers are strings; what is zero, false or empty is left out of an answer.
"""

from __future__ import annotations

import codecs
import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

__all__ = ["JSON", "KV", "Answer", "Messages"]

JSON: TypeAlias = dict[str, Any]
"""An object, as `json` gives it."""

LARGEST: Final = 64 * 1024 * 1024
"""Bytes of a message of a stream, above which it is none."""


def encoded(text: str) -> str:
    """A key or value as it is sent."""
    return b64encode(text.encode("utf-8", "surrogateescape")).decode("ascii")


def decoded(text: str) -> str:
    """A key or value as it was before it was sent; one that is no text still comes out as it went in."""
    return b64decode(text).decode("utf-8", "surrogateescape")


def after(prefix: str) -> str:
    """The first key that comes after all that begin with `prefix`, whose last character is ASCII or nothing special."""
    raw = bytearray(prefix.encode("utf-8", "surrogateescape"))
    raw[-1] += 1  # no byte of UTF-8 is 255
    return raw.decode("utf-8", "surrogateescape")


class KV(NamedTuple):
    """A key as it is at some revision of the store."""

    key: str
    value: str
    version: int
    created: int
    modified: int
    lease: int


def as_kv(found: JSON) -> KV:
    """A key as an answer has it."""
    return KV(
        decoded(found["key"]),
        decoded(found.get("value", "")),
        int(found.get("version", 0)),
        int(found.get("create_revision", 0)),
        int(found.get("mod_revision", 0)),
        int(found.get("lease", 0)),
    )


# --- what a transaction does


def put(key: str, value: str = "", lease: int = 0) -> JSON:
    """Set a key, and the lease that it is under."""
    return {"request_put": {"key": encoded(key), "value": encoded(value), "lease": str(lease)}}


def put_under(key: str, lease: int) -> JSON:
    """Put a key that exists under a lease, or under none if that is 0, and leave its value as it is."""
    return {"request_put": {"key": encoded(key), "ignore_value": True, "lease": str(lease)}}


def put_value(key: str, value: str) -> JSON:
    """Set a key that exists, and leave it under the lease that it is under."""
    return {"request_put": {"key": encoded(key), "value": encoded(value), "ignore_lease": True}}


def get(key: str) -> JSON:
    """Read a key."""
    return {"request_range": {"key": encoded(key)}}


def span(first: str, end: str, *, limit: int = 0, **more: Any) -> JSON:
    """Read the keys from `first` up to `end`, at most `limit` of them if that is not 0."""
    return {"request_range": {"key": encoded(first), "range_end": encoded(end), "limit": str(limit), **more}}


def under(prefix: str, *, limit: int = 0, **more: Any) -> JSON:
    """Read what begins with `prefix`."""
    return span(prefix, after(prefix), limit=limit, **more)


def delete(key: str) -> JSON:
    """Remove a key."""
    return {"request_delete_range": {"key": encoded(key)}}


def delete_span(first: str, end: str) -> JSON:
    """Remove the keys from `first` up to `end`."""
    return {"request_delete_range": {"key": encoded(first), "range_end": encoded(end)}}


def delete_under(prefix: str) -> JSON:
    """Remove what begins with `prefix`."""
    return delete_span(prefix, after(prefix))


def branch(compare: Sequence[JSON], success: Sequence[JSON], failure: Sequence[JSON]) -> JSON:
    """A transaction inside of one."""
    return {"request_txn": {"compare": compare, "success": success, "failure": failure}}


# --- what a transaction compares


def present(key: str) -> JSON:
    """The key exists."""
    return {"key": encoded(key), "target": "VERSION", "result": "GREATER", "version": "0"}


def absent(key: str) -> JSON:
    """The key does not exist."""
    return {"key": encoded(key), "target": "VERSION", "result": "EQUAL", "version": "0"}


def empty(prefix: str) -> JSON:
    """No key begins with `prefix`."""
    return {**absent(prefix), "range_end": encoded(after(prefix))}


def has_value(key: str, value: str) -> JSON:
    """The key exists and has that value."""
    return {"key": encoded(key), "target": "VALUE", "result": "EQUAL", "value": encoded(value)}


def created_at(key: str, revision: int) -> JSON:
    """The key exists since that revision."""
    return {"key": encoded(key), "target": "CREATE", "result": "EQUAL", "create_revision": str(revision)}


def unchanged(key: str, kv: KV | None) -> JSON:
    """The key is as it was read; None if it was not there."""
    return {"key": encoded(key), "target": "MOD", "result": "EQUAL", "mod_revision": str(0 if kv is None else kv.modified)}


def unchanged_span(first: str, end: str, revision: int) -> JSON:
    """No key from `first` up to `end` was set after that revision."""
    return {
        "key": encoded(first),
        "range_end": encoded(end),
        "target": "MOD",
        "result": "LESS",
        "mod_revision": str(revision + 1),
    }


class Answer:
    """What a transaction answered."""

    __slots__ = ("responses", "revision", "succeeded")

    def __init__(self, answer: JSON) -> None:
        self.succeeded: bool = bool(answer.get("succeeded"))
        self.responses: list[JSON] = answer.get("responses", [])
        self.revision: int = int(answer["header"]["revision"])

    def kvs(self, place: int) -> list[KV]:
        """What the read at that place found."""
        return [as_kv(each) for each in self.responses[place].get("response_range", {}).get("kvs", ())]

    def kv(self, place: int) -> KV | None:
        """The key that the read at that place found, or None."""
        found = self.responses[place].get("response_range", {}).get("kvs")
        return as_kv(found[0]) if found else None

    def count(self, place: int) -> int:
        """How many keys there are where that read looked, whatever its limit."""
        return int(self.responses[place].get("response_range", {}).get("count", 0))

    def sum(self, places: Iterable[int]) -> int:
        """How many keys there are where those reads looked."""
        return sum(map(self.count, places))


class Messages:
    """Cuts a stream of bytes into the JSON objects in it, wherever the pieces begin and end, with newlines between or without."""

    def __init__(self) -> None:
        self._text: str = ""
        self._utf8: codecs.IncrementalDecoder = codecs.getincrementaldecoder("utf-8")()
        self._json: json.JSONDecoder = json.JSONDecoder()

    def feed(self, data: bytes) -> list[JSON]:
        """The objects that are complete with `data`. Raises: ValueError for what is no such stream."""
        self._text += self._utf8.decode(data)
        found: list[JSON] = []
        place = 0
        while True:
            while place < len(self._text) and self._text[place] in " \t\r\n":
                place += 1
            if place == len(self._text):
                break
            if self._text[place] != "{":
                raise ValueError(f"it is no stream of objects: {self._text[place : place + 40]!r}")
            try:
                message, place = self._json.raw_decode(self._text, place)
            except json.JSONDecodeError:  # it is not complete yet
                break
            found.append(message)
        self._text = self._text[place:]
        if len(self._text) > LARGEST:
            raise ValueError(f"it has a message of more than {LARGEST} characters")
        return found

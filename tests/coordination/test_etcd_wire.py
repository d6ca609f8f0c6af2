"""What goes over the wire to etcd and back, and the arithmetic on it, without a server."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grouper.coordination.etcd.groups import parts
from grouper.coordination.etcd.keys import Keys
from grouper.coordination.etcd.mirror import GroupMirror
from grouper.coordination.etcd.settling import pick
from grouper.coordination.etcd.wire import KV, Answer, Messages, after, decoded, encoded

KEYS = Keys("p")


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The pieces of some bytes, cut at these places."""
    at = [0, *sorted([place % (len(data) + 1) for place in places]), len(data)]
    return [data[begin:end] for begin, end in itertools.pairwise(at)]


objects = st.dictionaries(st.text(max_size=5), st.recursive(st.text() | st.integers(), st.lists, max_leaves=5), max_size=3)


@settings(max_examples=50)
@given(st.lists(objects), st.lists(st.integers(min_value=0)), st.sampled_from(["\n", "", "\r\n", " \n\n"]), st.booleans())
def test_messages_come_out_as_they_went_in(messages: list[Any], places: list[int], between: str, plain: bool) -> None:
    """Wherever the stream is cut, also within a character, with newlines between the messages or without."""
    data = "".join([json.dumps(message, ensure_ascii=plain) + between for message in messages]).encode("utf-8", "surrogatepass")
    try:
        data.decode()
    except UnicodeDecodeError:
        return
    parser = Messages()
    assert [message for piece in cut(data, places) for message in parser.feed(piece)] == messages


def test_message_comes_out_when_it_is_complete() -> None:
    """Not when the next one begins."""
    parser = Messages()
    assert parser.feed(b'{"a": ') == []
    assert parser.feed(b'1}{"b') == [{"a": 1}]
    assert parser.feed(b'": 2}') == [{"b": 2}]


@pytest.mark.parametrize("data", [b"<html>", b"[1]", b"null\n"])
def test_what_is_no_stream_of_objects_is_refused(data: bytes) -> None:
    """At its first character, not when it has filled the memory."""
    with pytest.raises(ValueError, match="no stream of objects"):
        Messages().feed(data)


@given(st.text(), st.text())
def test_after_a_prefix_comes_what_does_not_begin_with_it(prefix: str, rest: str) -> None:
    """And nothing that does."""
    prefix = "/" + prefix.encode(errors="ignore").decode()
    key = (prefix + rest).encode("utf-8", "surrogateescape" if rest.isprintable() else "ignore")
    assert prefix.encode() <= key < after(prefix).encode("utf-8", "surrogateescape")


@given(st.binary())
def test_any_key_can_be_read_and_written(data: bytes) -> None:
    """Also one that somebody else wrote, and is no text."""
    import base64

    sent = base64.b64encode(data).decode()
    assert encoded(decoded(sent)) == sent


def test_answer_tells_what_is_left_out() -> None:
    """Zero, false and empty are not in etcd's JSON."""
    answer = Answer({"header": {"revision": "7"}, "responses": [{"response_range": {"header": {}}}, {"response_put": {}}]})
    assert (answer.succeeded, answer.revision) == (False, 7)
    assert (answer.kv(0), answer.kvs(0), answer.count(0), answer.kv(1)) == (None, [], 0, None)


@given(st.integers(min_value=1, max_value=2**31 - 1))
def test_parts_of_a_number_are_the_number(n: int) -> None:
    """In 32 keys at most, none of them empty."""
    weights = [weight for _, weight in parts(n)]
    assert sum(weights) == n
    assert len(weights) == min(n, 32)
    assert max(weights) - min(weights) <= 1


@given(st.lists(st.integers(min_value=1, max_value=9)), st.integers(min_value=1, max_value=60))
def test_picked_tickets_are_as_many_as_wanted(weights: list[int], n: int) -> None:
    """Or all there are; never more of a key than it has."""
    kvs = [KV(str(number), str(weight), 1, 1, 1, 0) for number, weight in enumerate(weights)]
    picked = pick(kvs, n)
    assert sum([part.units for part in picked]) == min(n, sum(weights))
    assert all(1 <= part.units <= int(part.kv.value) for part in picked)
    assert len({part.kv.key for part in picked}) == len(picked)


class Model:
    """A group's keys as etcd would have them, by the transactions that this package makes, one per revision."""

    def __init__(self) -> None:
        self.kvs: dict[str, KV] = {}
        self.revision = 0
        self.mirror = GroupMirror("g", KEYS.group("g"))
        self.base = self.mirror.keys.all
        self.lost = 0
        self.ended: list[tuple[int, int]] = []
        self.events: list[tuple[bool, KV]] = []
        self.put("g", json.dumps({"uid": "", "ttl": None, "created": 0.0}))
        self.mirror.load(self.kvs.values(), 0)
        self.events.clear()

    def put(self, key: str, value: str = "") -> None:
        before = self.kvs.get(self.base + key)
        version, created = (1, self.revision) if before is None else (before.version + 1, before.created)
        self.kvs[self.base + key] = kv = KV(self.base + key, value, version, created, self.revision, 0)
        self.events.append((True, kv))

    def delete(self, key: str) -> None:
        if kv := self.kvs.pop(self.base + key, None):
            self.events.append((False, kv))

    def under(self, kind: str) -> list[str]:
        return [key[len(self.base) :] for key in self.kvs if key.startswith(self.base + kind)]

    @property
    def counter(self) -> int:
        tickets = sum([int(self.kvs[self.base + key].value) for key in [*self.under("t/"), *self.under("d/")]])
        return tickets + len(self.under("m/"))

    def step(self, change: Callable[[], None]) -> None:
        before = self.counter
        self.revision += 1
        change()
        if before and not self.counter:
            self.ended.append((self.revision, self.lost))
        self.mirror.apply(self.revision, self.events)
        self.events.clear()

    def join(self, key: str, weight: int) -> None:
        leased = 0 if key.startswith("t/") else weight
        if not self.counter:
            self.lost = 0
            for old in [*self.under("j/"), *self.under("l/")]:
                self.delete(old)
            self.put("r", str(leased))
        elif leased:
            self.put(f"j/{leased}")
        self.put(key, str(weight))

    def leave(self, key: str, units: int) -> None:
        weight = int(self.kvs[self.base + key].value)
        if units < weight:
            self.put(key, str(weight - units))
        else:
            self.delete(key)
        if not key.startswith("t/"):
            self.put(f"l/{min(units, weight)}")

    def lose(self, key: str) -> None:
        self.lost += int(self.kvs[self.base + key].value)
        self.delete(key)


@settings(max_examples=60)
@given(st.data())
def test_mirror_counts_what_was_lost_and_misses_no_zero(data: st.DataObject) -> None:
    """By any story: the counter, each zero with what its round lost, and the same when all is read at once."""
    model = Model()
    for number in range(data.draw(st.integers(0, 25))):
        leased = [*model.under("d/"), *model.under("m/")]
        there = [*model.under("t/"), *leased]
        what = data.draw(st.sampled_from(["join", *(["leave"] if there else []), *(["lose"] if leased else [])]))
        if what == "join":
            kind = data.draw(st.sampled_from("tdm"))
            weight = 1 if kind == "m" else data.draw(st.integers(1, 4))
            model.step(functools.partial(model.join, f"{kind}/{number}", weight))
        elif what == "leave":
            key, units = data.draw(st.sampled_from(there)), data.draw(st.integers(1, 4))
            model.step(functools.partial(model.leave, key, units))
        else:
            model.step(functools.partial(model.lose, data.draw(st.sampled_from(leased))))
        read = GroupMirror("g", KEYS.group("g"))
        read.load(model.kvs.values(), model.revision)
        for mirror in (read, model.mirror):
            assert (mirror.counter, mirror.lost) == (model.counter, model.lost)
            assert len(mirror.status().members) == len(model.under("m/"))
    assert [status.lost for status in model.mirror.zeros] == [lost for _, lost in model.ended]
    assert all(status.counter == 0 for status in model.mirror.zeros)


@pytest.mark.parametrize("space", ["member", "lock", "presence"])
def test_names_and_ids_come_back_from_their_keys(space: str) -> None:
    """Also ids with a slash."""
    assert KEYS.named(space, KEYS.entry(space, "a.b", "x/y")) == ("a.b", "x/y")
    assert KEYS.entry(space, "a.b", "x/y").startswith(KEYS.entries(space, "a", by_prefix=True))
    assert not KEYS.entry(space, "a.b", "x/y").startswith(KEYS.entries(space, "a"))


def test_what_is_no_member_has_no_name() -> None:
    """Among the keys of a group."""
    assert KEYS.named("member", KEYS.group("a").tickets + "x") is None
    assert KEYS.named("member", KEYS.group("a").group) is None

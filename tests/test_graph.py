"""The dependency graph of a group: what is refused, and what its nodes count."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from grouper import CycleError, DuplicateNames, UnknownDependency
from grouper.graph import Edges, StoppableNode, duplicate_names, find_cycle


class Place(StoppableNode):
    """A node with a name."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name
        self._left = self._blockers = 0
        self._unlocks = ()
        self._frees = ()


def linked(edges: Edges, names: str) -> dict[str, Place]:
    places = [Place(name) for name in names]
    edges.link(places)
    return {place.name: place for place in places}


def counted(places: dict[str, Place]) -> dict[str, str]:
    """For each node: how many it is after < who is after it; how many must be done before its stop > whom its own end frees."""
    return {
        name: f"{place._left} < {text(place._unlocks)}, {place._blockers} > {text(place._frees)}" for name, place in places.items()
    }


def text(nodes: Sequence[Place]) -> str:
    return "".join(node.name for node in nodes) or "-"


DIAMOND = [("a", ()), ("b", ("a",)), ("c", ("a",)), ("d", ("b", "c"))]

SHAPES: dict[str, tuple[Edges, str, dict[str, str]]] = {
    "none": (Edges.none("ab"), "ab", {"a": "0 < -, 0 > -", "b": "0 < -, 0 > -"}),
    "chain": (Edges.chain("abc"), "abc", {"a": "0 < b, 1 > -", "b": "1 < c, 1 > a", "c": "1 < -, 0 > b"}),
    "chain forwards": (Edges.chain("abc", forwards=True), "abc", {"a": "0 < b, 0 > b", "b": "1 < c, 1 > c", "c": "1 < -, 1 > -"}),
    "diamond": (
        Edges.named(DIAMOND),
        "abcd",
        {"a": "0 < bc, 2 > -", "b": "1 < d, 1 > a", "c": "1 < d, 1 > a", "d": "2 < -, 0 > bc"},
    ),
    "named backwards": (Edges.named([("a", ("b",)), ("b", ())]), "ab", {"a": "1 < -, 0 > b", "b": "0 < a, 1 > -"}),
    "named twice": (Edges.named([("a", ()), ("b", ("a", "a"))]), "ab", {"a": "0 < bb, 2 > -", "b": "2 < -, 0 > aa"}),
    "chain of one": (Edges.chain("a"), "a", {"a": "0 < -, 0 > -"}),
    "chain of nobody": (Edges.chain(""), "", {}),
    "nobody named": (Edges.named([]), "", {}),
}


@pytest.mark.parametrize(("edges", "names", "counts"), SHAPES.values(), ids=SHAPES)
def test_linked_nodes(edges: Edges, names: str, counts: dict[str, str]) -> None:
    """Each node counts those it is after and those that must end before it, and refers to those that wait for it for either."""
    assert counted(linked(edges, names)) == counts


def test_edges_are_shared_by_runs() -> None:
    """Linking a second run leaves the nodes of the first as they were."""
    edges = Edges.chain("abc")
    first = linked(edges, "abc")
    first["b"]._left = 0
    second = linked(edges, "abc")
    assert second["b"]._left == 1
    assert counted(first)["a"] == counted(second)["a"]


MAKERS: dict[str, Callable[[str], Edges]] = {
    "none": Edges.none,
    "chain": Edges.chain,
    "named": lambda names: Edges.named((name, ()) for name in names),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_duplicates_are_refused(make: Callable[[str], Edges]) -> None:
    """Every duplicate is told once, in order of first appearance."""
    with pytest.raises(DuplicateNames) as caught:
        make("cabacab")
    assert caught.value.names == ("c", "a", "b")


def test_duplicate_names() -> None:
    """Names that are there once are no duplicates."""
    assert duplicate_names("abcbda") == ["a", "b"]


def test_every_unknown_name_is_told() -> None:
    """The error lists who is after whom."""
    with pytest.raises(UnknownDependency) as caught:
        Edges.named([("a", ("x", "b", "y")), ("b", ("x",))])
    assert caught.value.pairs == (("a", "x"), ("a", "y"), ("b", "x"))


CYCLES: dict[str, tuple[dict[str, str], list[str]]] = {
    "itself": ({"a": "a"}, ["a", "a"]),
    "two": ({"a": "b", "b": "a"}, ["a", "b", "a"]),
    "behind a tail": ({"a": "b", "b": "c", "c": "d", "d": "b"}, ["b", "c", "d", "b"]),
    "second branch": ({"a": "bc", "b": "", "c": "d", "d": "a"}, ["a", "c", "d", "a"]),
    "not from the first": ({"a": "", "b": "c", "c": "b"}, ["b", "c", "b"]),
    "diamond": ({"a": "bc", "b": "d", "c": "d", "d": ""}, []),
    "twice the same": ({"a": "bb", "b": ""}, []),
    "met on the way and waiting": ({"a": "bc", "b": "c", "c": ""}, []),
    "empty": ({}, []),
}


@pytest.mark.parametrize(("after", "path"), CYCLES.values(), ids=CYCLES)
def test_find_cycle(after: dict[str, str], path: list[str]) -> None:
    """The path goes once around the circle, each name after the next; there is none without a circle."""
    assert find_cycle(after) == path


def test_circle_is_refused_with_its_path() -> None:
    """Members that wait for each other are told in order."""
    with pytest.raises(CycleError) as caught:
        Edges.named([("a", ("b",)), ("b", ("c",)), ("c", ("a",))])
    assert caught.value.path == ("a", "b", "c", "a")


def test_all_problems_are_told_at_once() -> None:
    """The first problem is raised, and the others are notes on it."""
    with pytest.raises(DuplicateNames) as caught:
        Edges.named([("a", ("x",)), ("a", ()), ("b", ("c",)), ("c", ("b",))])
    unknown, circle = caught.value.__notes__
    assert unknown.startswith("also UnknownDependency: 'a' is after 'x'")
    assert circle.startswith("also CycleError: members are after each other in a circle: 'b' -> 'c' -> 'b'")


def test_long_chain() -> None:
    """A chain of 10,000 is checked without recursion."""
    names = [str(number) for number in range(10_000)]
    pairs = [(name, [names[place - 1]] if place else list[str]()) for place, name in enumerate(names)]
    assert Edges.named(pairs[::-1]).after[0] == (1,)


def test_long_circle() -> None:
    """A circle of 10,000 is found without recursion."""
    names = [str(number) for number in range(10_000)]
    with pytest.raises(CycleError) as caught:
        Edges.named((name, [names[place - 1]]) for place, name in enumerate(names))
    assert len(caught.value.path) == 10_001

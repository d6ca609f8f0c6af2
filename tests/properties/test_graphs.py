"""Dependency graphs, random ones, are what `graphlib` says."""

from __future__ import annotations

import contextlib
import graphlib
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grouper import CycleError, DuplicateNames, UnknownDependency
from grouper.graph import Edges, StoppableNode, find_cycle

NAMES = "abcdefg"

graphs = st.dictionaries(st.sampled_from(NAMES), st.lists(st.sampled_from(NAMES), max_size=3)).map(
    lambda found: {name: [other for other in others if other in found] for name, others in found.items()}
)


class Place(StoppableNode):
    """A node with nothing but its place."""

    __slots__ = ("place",)

    def __init__(self, place: int) -> None:
        self._left = self._blockers = 0
        self._unlocks = self._frees = ()
        self.place = place


def _is_acyclic(after: dict[str, list[str]]) -> bool:
    with contextlib.suppress(graphlib.CycleError):
        graphlib.TopologicalSorter(after).prepare()
        return True
    return False


@settings(derandomize=True, deadline=None, max_examples=400)
@given(graphs)
def test_a_circle_is_found_where_there_is_one(after: dict[str, list[str]]) -> None:
    """`find_cycle` returns a path back to its beginning along the edges exactly where graphlib finds a circle."""
    found = find_cycle(after)
    assert (found == []) == _is_acyclic(after)
    if found:
        assert found[0] == found[-1]
        assert len(set(found)) == len(found) - 1
        assert all(later in after[earlier] for earlier, later in itertools.pairwise(found))


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(NAMES), st.lists(st.sampled_from(NAMES), max_size=2)), max_size=7))
def test_edges_name_what_is_wrong_with_a_graph(pairs: list[tuple[str, list[str]]]) -> None:
    """Duplicates, names that nobody has and circles are refused, in this order, and nothing else is."""
    names = [name for name, _ in pairs]
    known = {name: [other for other in others if other in names] for name, others in pairs}
    if len(set(names)) < len(names):
        with pytest.raises(DuplicateNames):
            Edges.named(pairs)
    elif any(other not in names for _, others in pairs for other in others):
        with pytest.raises(UnknownDependency):
            Edges.named(pairs)
    elif not _is_acyclic(known):
        with pytest.raises(CycleError):
            Edges.named(pairs)
    else:
        after = Edges.named(pairs).after
        assert [{names[place] for place in places} for places in after] == [set(known[name]) for name in names]


@settings(derandomize=True, deadline=None, max_examples=300)
@given(graphs.filter(_is_acyclic), st.booleans())
def test_the_walk_that_starts_comes_to_all_each_after_those_it_is_after(after: dict[str, list[str]], forwards: bool) -> None:
    """Counting down `_left` along `_unlocks` reaches every node once, in an order that graphlib could have given."""
    names = list(after)
    edges = Edges(Edges.named(after.items()).after, forwards)
    nodes = [Place(place) for place in range(len(names))]
    edges.link(nodes)
    todo = [node for node in nodes if not node._left]
    order: list[str] = []
    while todo:
        node = todo.pop()
        order.append(names[node.place])
        for other in node._unlocks:
            other._left -= 1
            if not other._left:
                todo.append(other)
    assert sorted(order) == sorted(names)
    assert all(order.index(before) < order.index(name) for name in names for before in after[name])

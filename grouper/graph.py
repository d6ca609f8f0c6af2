"""A validated dependency graph, and the counters with which it is walked.

`Edges` is the description: checked once, when it is made, and shared by all runs. `Node` is one place of one run: of a group's
start, or of a run of jobs. Both walks, the one that starts and the one that stops, count what is left on the nodes themselves and
follow direct references, so that a step costs as much as the node has edges, and nothing is looked up by name. What only ends, as
jobs do, has no walk that stops it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Self, TypeVar

import attrs

from .errors import CycleError, DuplicateNames, GraphError, UnknownDependency

__all__ = ["Edges", "Node", "StoppableNode"]


class Node:
    """A place in a running graph.

    `_left` counts the nodes it is after that are not satisfied yet; `_unlocks` are those after it. A subclass initialises them.
    """

    __slots__ = ("_left", "_unlocks")

    _left: int
    _unlocks: list[Self] | tuple[()]


class StoppableNode(Node):
    """A place that is also walked back, to stop it.

    `_blockers` counts the nodes that must be done before this one is stopped; `_frees` are those for which this one is such a
    blocker.
    """

    __slots__ = ("_blockers", "_frees")

    _blockers: int
    _frees: Sequence[Self]


N = TypeVar("N", bound=Node)
S = TypeVar("S", bound=StoppableNode)


@attrs.frozen(eq=False)
class Edges:
    """Who is after whom, by position; `forwards` says that the stop goes the same way as the start."""

    after: tuple[tuple[int, ...], ...]
    forwards: bool = False

    @classmethod
    def none(cls, names: Sequence[str]) -> Edges:
        """Nobody is after anybody."""
        require_unique(names)
        return cls(((),) * len(names))

    @classmethod
    def chain(cls, names: Sequence[str], *, forwards: bool = False) -> Edges:
        """Each is after the one before it."""
        require_unique(names)
        return cls(((), *((position,) for position in range(len(names) - 1))) if names else (), forwards)

    @classmethod
    def named(cls, after: Iterable[tuple[str, Sequence[str]]], *, kind: str = "member") -> Edges:
        """Each is after those it names; `kind` is what messages call them. A name that is named twice counts twice, in both walks.

        Raises: DuplicateNames, UnknownDependency or CycleError; where several hold, the first with the others as notes.
        """
        pairs = list(after)
        places = {name: place for place, (name, _) in enumerate(pairs)}
        place_of = places.__getitem__
        try:
            befores = [tuple(map(place_of, others)) for _, others in pairs]
        except KeyError:
            befores = []
        if len(befores) < len(pairs) or len(places) < len(pairs) or not _is_acyclic(befores):
            raise_first(_problems(pairs, places, kind))
        return cls(tuple(befores))

    def link_start(self, nodes: Sequence[N]) -> None:
        """Set the counters and references with which the nodes of a run are started."""
        unlocks: list[list[N] | None] = [None] * len(nodes)
        for node, befores in zip(nodes, self.after, strict=True):
            if befores:
                node._left = len(befores)
                for before in befores:
                    those = unlocks[before]
                    if those is None:
                        unlocks[before] = nodes[before]._unlocks = [node]
                    else:
                        those.append(node)

    def link(self, nodes: Sequence[S]) -> None:
        """Set the counters and references of the nodes of a run, for both walks."""
        self.link_start(nodes)
        if self.forwards:
            for node in nodes:
                node._blockers = node._left
                node._frees = node._unlocks
        else:
            for node, befores in zip(nodes, self.after, strict=True):
                node._blockers = len(node._unlocks)
                if befores:
                    node._frees = tuple([nodes[before] for before in befores])


def _is_acyclic(after: Sequence[Sequence[int]]) -> bool:
    """Whether there is no circle. It takes no search where everybody is after those given earlier."""
    for place, befores in enumerate(after):
        if befores and max(befores) >= place:
            break
    else:
        return True
    left = list(map(len, after))
    unlocks: list[list[int]] = [[] for _ in after]
    for place, befores in enumerate(after):
        for before in befores:
            unlocks[before].append(place)
    free = [place for place, number in enumerate(left) if not number]
    for place in free:  # which grows
        for other in unlocks[place]:
            left[other] -= 1
            if not left[other]:
                free.append(other)
    return len(free) == len(after)


def _problems(pairs: Sequence[tuple[str, Sequence[str]]], places: Mapping[str, int], kind: str) -> list[GraphError]:
    problems: list[GraphError] = []
    if duplicates := duplicate_names(name for name, _ in pairs):
        problems.append(DuplicateNames(duplicates, kind))
    if unknown := [(name, other) for name, others in pairs for other in others if other not in places]:
        problems.append(UnknownDependency(unknown, kind))
    if circle := find_cycle({name: [other for other in others if other in places] for name, others in pairs}):
        problems.append(CycleError(circle, kind))
    return problems


def duplicate_names(names: Iterable[str]) -> list[str]:
    """Each name that is there more than once, in order of appearance."""
    return [name for name, times in Counter(names).items() if times > 1]


def require_unique(names: Sequence[str]) -> None:
    """Raises: DuplicateNames."""
    if len(set(names)) != len(names):
        raise DuplicateNames(duplicate_names(names))


def raise_first(problems: Sequence[GraphError]) -> None:
    """Raise the first problem, if any, with the others as notes: all are told at once."""
    if problems:
        for other in problems[1:]:
            problems[0].add_note(f"also {type(other).__name__}: {other}")
        raise problems[0]


def find_cycle(after: Mapping[str, Sequence[str]]) -> list[str]:
    """A path that begins and ends with the same name, each after the next; empty if there is no circle."""
    done: set[str] = set()
    for start in after:
        path: dict[str, None] = {}
        todo = [(start, False)]
        while todo:
            name, leaving = todo.pop()
            if leaving:
                del path[name]
                done.add(name)
            elif name in path:
                names = list(path)
                return [*names[names.index(name) :], name]
            elif name not in done:
                path[name] = None
                todo.append((name, True))
                todo.extend((other, False) for other in reversed(after[name]))
    return []

"""A validated dependency graph, and the counters with which it is walked.

`Edges` is the description: checked once, when it is made, and shared by all runs. `Node` is one place of one run. Both walks, the
one that starts and the one that stops, count what is left on the nodes themselves and follow direct references, so that a step
costs as much as the node has edges, and nothing is looked up by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Self, TypeVar

import attrs

from .errors import CycleError, DuplicateNames, GraphError, UnknownDependency

__all__ = ["Edges", "Node"]


class Node:
    """A place in a running graph.

    `_left` counts the nodes it is after that are not satisfied yet; `_unlocks` are those after it. `_blockers` counts the nodes
    that must be done before this one is stopped; `_frees` are those for which this one is such a blocker. A subclass defines
    slots of its own and initialises these four.
    """

    __slots__ = ("_blockers", "_frees", "_left", "_unlocks")

    _left: int
    _blockers: int
    _unlocks: list[Self] | tuple[()]
    _frees: Sequence[Self]


N = TypeVar("N", bound=Node)


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
    def named(cls, after: Iterable[tuple[str, Sequence[str]]]) -> Edges:
        """Each is after those it names.

        Raises: DuplicateNames, UnknownDependency or CycleError; where several hold, the first with the others as notes.
        """
        pairs = list(after)
        names = [name for name, _ in pairs]
        places = {name: place for place, name in enumerate(names)}
        problems: list[GraphError] = []
        if duplicates := duplicate_names(names):
            problems.append(DuplicateNames(duplicates))
        if unknown := [(name, other) for name, others in pairs for other in others if other not in places]:
            problems.append(UnknownDependency(unknown))
        if circle := find_cycle({name: [other for other in others if other in places] for name, others in pairs}):
            problems.append(CycleError(circle))
        raise_first(problems)
        return cls(tuple(tuple(dict.fromkeys(places[other] for other in others)) for _, others in pairs))

    def link(self, nodes: Sequence[N]) -> None:
        """Set the counters and references of the nodes of a run."""
        for place, befores in enumerate(self.after):
            if not befores:
                continue
            node = nodes[place]
            node._left = len(befores)
            earlier = tuple([nodes[before] for before in befores])
            for other in earlier:
                if other._unlocks:
                    other._unlocks.append(node)
                else:
                    other._unlocks = [node]
                if not self.forwards:
                    other._blockers += 1
            if self.forwards:
                node._blockers = len(befores)
            else:
                node._frees = earlier
        if self.forwards:
            for node in nodes:
                node._frees = node._unlocks


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

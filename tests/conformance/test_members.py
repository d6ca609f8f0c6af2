"""What members are (section 1.3 of the contract)."""

from __future__ import annotations

from typing import Any

import pytest

from grouper import DuplicateNames, Graph, Ordered, Parallel, QueueOrdered

from .runners import Actor, Stage, watched

STATIC = [Ordered, QueueOrdered, Parallel, Graph]


@pytest.mark.contract("18")
async def test_18_members_keep_the_order_in_which_they_are_given() -> None:
    """Members are in the order of the list, or of the mapping, and that is the order in which they start."""
    stage = Stage("cab", ready=True, polite=True)
    group = Ordered(stage.actors)
    assert [member.name for member in group.members] == ["c", "a", "b"]
    async with watched(group):
        assert await stage.news() == ["c starts", "a starts", "b starts"]


@pytest.mark.contract("19")
@pytest.mark.parametrize(
    ("given", "duplicates"),
    [
        (["foo", "foo"], ("foo",)),
        (["foo", "bar", "foo", "bar", "none"], ("foo", "bar")),
        (["bar", "foo", "foo", "bar", "foo"], ("bar", "foo")),
    ],
)
def test_19_all_duplicate_names_are_told_at_once(given: list[str], duplicates: tuple[str, ...]) -> None:
    """The error lists each name that is there more than once, once, in order of appearance."""
    with pytest.raises(DuplicateNames) as caught:
        Parallel([(name, Actor(name, [])) for name in given])
    assert caught.value.names == duplicates


@pytest.mark.contract("20")
@pytest.mark.parametrize("kind", STATIC)
def test_20_duplicate_names_are_refused_at_construction(kind: Any) -> None:
    """A static group with a duplicate name cannot be made, so nothing of it is ever started."""
    stage = Stage("a")
    with pytest.raises(DuplicateNames):
        kind([*stage.members(), *stage.members()])
    assert kind(stage.members()).members[0].name == "a"

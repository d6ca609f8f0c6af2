"""Random trees that restart, and are operated by hand, keep all their promises."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from random import Random
from typing import Any
from unittest import mock

import pytest

from grouper import Backoff, Process, Restart, RestartType, Role, Strategy
from grouper.groups.operations import VERBS
from grouper.groups.recovery import Recoveries
from grouper.restart import RESTARTS, Account, Ending

from .auditing import BrokenError
from .scenarios import Kind
from .supervised import Hold, Leaf, Life, Spec, Tree, lives_of
from .supervising import play

SEEDS = 300

# To have a failing life shrunk, draw from `st.randoms(use_true_random=False)` and add Phase.shrink.


@pytest.mark.parametrize("hundred", range(6))
def test_every_invariant_holds_in_every_life_of_every_supervised_tree(hundred: int) -> None:
    """Whatever a tree does, and whatever is done to it, it ends, and all invariants hold."""
    for seed in range(100 * hundred, 100 * hundred + 100):
        try:
            play(lives_of(Random(seed)))
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise


def moody(name: str, seed: int, **policy: Any) -> Spec:
    """A member that fails at random and always comes back."""
    return Spec(name, Leaf(seed, 0.3), restart=Restart(start_errors=True, **policy), around=Hold() if seed % 3 == 0 else None)


def large_tree() -> Tree:
    """A tree with all kinds of group in it, whose members fail at random and always come back."""
    at_once = Restart(backoff=Backoff(0.1, cap=1.0), limit=math.inf)
    own: dict[str, Any] = {"backoff": Backoff(0.1, cap=1.0), "limit": math.inf}
    whole = Restart(RestartType.PERMANENT, start_errors=True, **own)

    def group(name: str, tree: Tree) -> Spec:
        return Spec(name, tree, restart=whole)

    return Tree(
        Kind.PARALLEL,
        (
            group("one", Tree(Kind.ORDERED, tuple(moody(name, seed, **own) for seed, name in enumerate("abcd")))),
            group("all", Tree(Kind.ORDERED, tuple(moody(name, seed) for seed, name in enumerate("abc")), Strategy.ALL, at_once)),
            group("rest", Tree(Kind.QUEUE, tuple(moody(name, seed) for seed, name in enumerate("abcd")), Strategy.REST, at_once)),
            group(
                "graph",
                Tree(
                    Kind.GRAPH,
                    (
                        Spec("a", Leaf(1, 0.2), restart=Restart(start_errors=True)),
                        Spec("b", Leaf(2, 0.2), ("a",), restart=Restart(start_errors=True), around=Hold(0.1, 0.1)),
                        Spec("c", Leaf(3, 0.2), ("a",), role=Role.OPTIONAL),
                        Spec("d", Leaf(4, 0.2), ("b", "c"), restart=Restart(start_errors=True)),
                    ),
                    Strategy.REST,
                    at_once,
                ),
            ),
            Spec("dynamic", Tree(Kind.DYNAMIC, tuple(moody(name, seed, **own) for seed, name in enumerate("abcd"))), restart=whole),
        ),
    )


def test_no_operation_is_lost_in_a_tree_that_fails_at_random() -> None:
    """Of 10,000 operations at random, beside signals and kills, each ends, and all invariants hold."""
    world = play(Life(large_tree(), seed=5, operations=19_000, pause=0.1, lasting=True))
    assert world.ended >= 10_000
    assert world.auditor.restarts > 500


Mutation = Callable[[], contextlib.AbstractContextManager[object]]
MUTATIONS: dict[str, Mutation] = {}


def mutation(make: Mutation) -> Mutation:
    MUTATIONS[make.__name__] = make
    return make


@mutation
def restarts_not_counted() -> contextlib.AbstractContextManager[object]:
    return mock.patch.object(Account, "spend", return_value=None)


@mutation
def temporary_comes_back() -> contextlib.AbstractContextManager[object]:
    return mock.patch.dict(RESTARTS, {(RestartType.TEMPORARY, Ending.FAILURE): True})


@mutation
def transient_comes_back_from_a_clean_exit() -> contextlib.AbstractContextManager[object]:
    return mock.patch.dict(RESTARTS, {(RestartType.TRANSIENT, Ending.CLEAN): True})


@mutation
def dependents_forgotten() -> contextlib.AbstractContextManager[object]:
    def mutant(engine: Recoveries, process: Process) -> dict[Process, None]:
        return {process: None}

    return mock.patch.object(Recoveries, "dependents", mutant)


@mutation
def all_stopped_at_once() -> contextlib.AbstractContextManager[object]:
    count = Recoveries.count

    def mutant(engine: Recoveries, part: Any, up: Any) -> None:
        count(engine, part, up)
        for process in part:
            process._blockers = 0

    return mock.patch.object(Recoveries, "count", mutant)


@mutation
def started_beside_what_goes_down() -> contextlib.AbstractContextManager[object]:
    return mock.patch.object(Recoveries, "no_more_satisfied", return_value=None)


@mutation
def stopped_by_hand_and_told_to_come_back() -> contextlib.AbstractContextManager[object]:
    return mock.patch.dict(VERBS, {"stop": VERBS["restart"]})


@mutation
def waiters_of_starts_not_released() -> contextlib.AbstractContextManager[object]:
    tell = Process._tell_waiters

    def mutant(process: Process, *args: Any) -> None:
        if process.ended_at is not None:
            tell(process, *args)

    return mock.patch.object(Process, "_tell_waiters", mutant)


def breaks(life: Life) -> bool:
    try:
        play(life)
    except BrokenError:
        return True
    except Exception:  # a mistake may well make the engine itself fall over
        return True
    return False


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mistake_in_supervision_is_caught(name: str) -> None:
    """Some random life breaks an invariant with the mistake, and breaks none without it."""
    with mock.patch("sys.unraisablehook"):  # what was thrown away after a hang complains
        for seed in range(SEEDS):
            life = lives_of(Random(seed))
            with MUTATIONS[name]():
                broken = breaks(life)
            if broken and not breaks(life):
                return
    pytest.fail(f"{SEEDS} lives saw nothing wrong with {name}")

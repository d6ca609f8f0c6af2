"""Random trees, through random lives, keep all their promises."""

from __future__ import annotations

from random import Random

import pytest

from .invariants import check
from .playing import play
from .scenarios import scenario


@pytest.mark.parametrize("hundred", range(10))
def test_every_invariant_holds_in_every_life_of_every_tree(hundred: int) -> None:
    """Whatever happens to a tree, all invariants hold."""
    for seed in range(100 * hundred, 100 * hundred + 100):
        try:
            check(play(scenario(Random(seed))))
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise

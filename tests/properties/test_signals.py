"""`Signals`, through random sequences of what can be done with them, are what a plain list would be."""

from __future__ import annotations

import contextlib
import signal
from typing import Final

import attrs
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from grouper import Signals
from grouper.signals import KILL, STOP_SIGNALS

TERM, INT, HUP, USR1 = int(signal.SIGTERM), int(signal.SIGINT), int(signal.SIGHUP), int(signal.SIGUSR1)
ENDS: Final = STOP_SIGNALS | {KILL}


@attrs.define
class Model:
    """What `Signals` are: a list of what is pending, and one of what a sink was handed and has not acted on."""

    pending: list[int] = attrs.field(factory=list[int])
    handed: list[int] | None = None
    received: int | None = None
    blocks: list[bool] = attrs.field(factory=list[bool])
    """Of each open `cancelling()` block, whether it is cancelled."""

    def send(self, number: int) -> None:
        if number in ENDS:
            self.received = self.received or number
            self.blocks = [True] * len(self.blocks)
        elif number in (self.pending if self.handed is None else self.handed):
            return
        (self.pending if self.handed is None else self.handed).append(number)


operations = st.one_of(
    st.tuples(st.just("send"), st.sampled_from([TERM, INT, HUP, HUP, USR1, USR1, KILL])),
    st.tuples(st.sampled_from(["take", "take", "look", "attach", "act", "act", "detach", "enter", "leave"]), st.just(0)),
)


async def _taken(signals: Signals, *, looking: bool) -> int | None:
    """What is taken or looked at; None if that waits for ever. What the blocks around cancel is not meant."""
    with trio.CancelScope(shield=True), trio.move_on_after(1):
        return await signals.wait() if looking else await anext(signals)
    return None


async def _compare(todo: list[tuple[str, int]]) -> None:
    signals, model = Signals(), Model()
    handed: list[int] = []
    with contextlib.ExitStack() as stack:
        blocks: list[contextlib.ExitStack] = []
        scopes: list[trio.CancelScope] = []
        for operation, number in todo:
            if operation == "send":
                signals.send(number)
                model.send(number)
            elif operation in ("take", "look"):
                expected = model.pending[0] if model.pending else None
                assert await _taken(signals, looking=operation == "look") == expected
                if expected is not None and operation == "take":
                    model.pending.pop(0)
            elif operation == "attach" and model.handed is None:
                signals._attach(handed.append)
                model.handed, model.pending = model.pending, []
            elif operation == "act" and model.handed:
                signals._taken(handed.pop(0))
                model.handed.pop(0)
            elif operation == "detach" and model.handed is not None:
                signals._detach(handed)
                handed = []
                model.pending, model.handed = model.handed, None
            elif operation == "enter":
                blocks.append(stack.enter_context(contextlib.ExitStack()))
                scopes.append(blocks[-1].enter_context(signals.cancelling()))
                model.blocks.append(not ENDS.isdisjoint(model.pending))
            elif operation == "leave" and blocks:
                blocks.pop().close()
                scopes.pop()
                model.blocks.pop()
            assert signals.received == model.received
            assert handed == (model.handed or [])
            assert [scope.cancel_called for scope in scopes] == model.blocks
        if model.handed is not None:
            signals._detach(handed)
            model.pending = model.handed
        left = [await _taken(signals, looking=False) for _ in model.pending]
        assert left == model.pending
        while blocks:
            blocks.pop().close()


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.lists(operations, max_size=30))
def test_signals_are_a_list(todo: list[tuple[str, int]]) -> None:
    """Order is kept, a pending pass-through signal is queued once, every stop signal is, and `received` is the first for ever."""
    trio.run(_compare, todo, clock=trio.testing.MockClock(autojump_threshold=0))

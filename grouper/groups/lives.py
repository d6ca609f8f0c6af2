"""The one task in which a member that may be started again lives: life after life, inside what is held around them.

A life ends with a report to the group, and the task waits for what the group decides: another life, or the end. So a restart
costs no task, and what `around` manages is held across restarts by the task that entered it. A life is killed by the scope around
it, which serves until somebody is; a kill that is final reaches the entering and the leaving of `around` too.

`trio.lowlevel` is used to wait without an Event for each life, and to keep KeyboardInterrupt out of these lines (see process.py).
"""

from __future__ import annotations

from typing import Any

import attrs
import trio

from ..member import Held
from ..process import Process
from ..restart import lives
from ..runner import RunnerLike, unprotected
from ..signals import Signals

__all__ = ["answer", "live_again"]


@trio.lowlevel.enable_ki_protection
async def live_again(process: Process) -> None:
    """Let a process live until its group's loop ends it. Raises nothing: what was raised becomes the exit."""
    process._task = task = trio.lowlevel.current_task()
    member = process.member
    error: BaseException | None = None
    try:
        if not process._killed:
            if member.around is None:
                error = await Lives(process).live_on()
            else:
                with trio.CancelScope(shield=True) as whole:
                    process._scope = whole
                    try:
                        held = Held(Lives(process, whole), member.around, f"member {member.name!r}")
                        await unprotected(held.run(process._signals, task_status=process))
                    except Exception as caught:
                        error = caught
    except BaseException as caught:
        error = caught
    if process._task is task:  # else it has ended already, and may have been started again by hand, in another task
        process._error = error
        process._over = True
        process._task = None
        process._host.post(process)


@attrs.frozen(eq=False)
class Lives:
    """A runner: the lives of a process, one after the other, and what its group says in between."""

    process: Process
    whole: trio.CancelScope | None = None

    @trio.lowlevel.enable_ki_protection
    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        """Live, and live again as long as the group says so. Raises: the last life's error."""
        process = self.process
        try:
            await self.live_on()
        finally:
            if self.whole is not None:
                process._scope = self.whole
        process._over = False
        if process._killed and self.whole is not None:
            self.whole.cancel("it was killed")
            if process._error is None or process._error is process._failure:
                await trio.lowlevel.checkpoint()  # what is around it sees the cancellation
        if process._error is not None:  # as the loop has judged it
            raise process._error

    async def live_on(self) -> Exception | None:
        """Live until there is no other life; return how the last one ended. A scope serves until somebody is killed in it."""
        process = self.process
        # Not asked of the scope: by the time this task goes on, the process may have been started again, and killed, in another.
        used_up = True

        async def following(runner: RunnerLike, error: Exception | None) -> RunnerLike | None:
            nonlocal used_up
            if process._killed:
                return None
            used_up = False
            if not await self._goes_on(error):
                return None
            used_up = True
            return runner

        while True:
            error: Exception | None = None
            # Not shielded from what is around it: that may have to end it, as a lost lock does.
            with trio.CancelScope(shield=self.whole is None) as process._scope:
                error = await lives(process.member._runs, process._lived, following)
            if not used_up or not await self._goes_on(error):
                return error

    async def _goes_on(self, error: Exception | None) -> bool:
        """Report the end of a life, and wait, unless that is decided at once, until it is decided whether there is another."""
        process = self.process
        process._error = error
        process._over = True
        if process._last:  # the loop has ended
            return False
        process._asking = task = trio.lowlevel.current_task()
        process._host.report(process)
        if process._asking is not None:
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        # By now it may have been started again by hand, in another task.
        return not process._last and process._task is task

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        """Only what is around the lives can end them so, and the task reports that itself; a cancellation from outside waits."""
        if self.whole is None:
            return trio.lowlevel.Abort.FAILED
        self.process._asking = None
        return trio.lowlevel.Abort.SUCCEEDED


def answer(process: Process, *, again: bool) -> None:
    """Tell the task that waits whether there is another life. Without one, and with nothing held, the process has ended now."""
    task, process._asking = process._asking, None
    process._last = not again
    if not again and process.member.around is None:
        process._task = None
    if task is not None and task is not trio.lowlevel.current_task():  # else it need not wait
        trio.lowlevel.reschedule(task)

"""A wait group as a member of a tree: what comes after it starts when the group is done."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from ..member import Role
from ..signals import Signals
from .errors import Deleted, NotFound, Unavailable, WaitGroupError, require_name
from .following import Outage, require_store
from .model import Status
from .store import Store

__all__ = ["WaitGroupDone", "until"]


@attrs.frozen(eq=False)
class WaitGroupDone:
    """Wait for a wait group; it is ready when the group is Done, and its value is the `Status`.

    `Ordered([("migrated", WaitGroupDone(store, "migrations")), ("api", api)])`: the api starts when the migrations are done. The
    waiter has nothing more to do then and stays until it is told to stop; as a member that is a `Role.JOB` it returns. With
    `started`, the group must have counted something before.

    A stop signal ends it cleanly. An unavailable store is tried again, and the log is told; a zero that has come and gone meanwhile
    counts only if the store tells of it then. Raises, when it runs: WaitGroupError if members were lost in that round, unless
    `allow_lost`; NotFound if there is no such group, at once; Deleted. When it is made: InvalidName, TypeError.
    """

    store: Store
    name: str
    started: bool = attrs.field(default=False, kw_only=True)
    allow_lost: bool = attrs.field(default=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        require_store(self.store, "WaitGroupDone")
        require_name(self.name, "wait group")

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Status]) -> None:
        """Wait until the group is done, then, if it is not a job, until told to stop."""
        with signals.cancelling():
            status = await self._done()
            if status.lost and not self.allow_lost:
                raise WaitGroupError(
                    f"wait group {self.name!r} is done, but {status.lost} of what it counted did not finish: do that work again, "
                    "or give allow_lost=True"
                )
            task_status.started(status)
            owner = signals._owner
            if owner is None or owner.member.role is not Role.JOB:
                await trio.sleep_forever()

    async def _done(self) -> Status:
        outage = Outage(f"the wait for wait group {self.name!r}")
        return await until(
            self.store, self.name, lambda status: not status.counter and (status.started or not self.started), outage
        )


async def until(store: Store, name: str, enough: Callable[[Status], bool], outage: Outage, *, first_too: bool = True) -> Status:
    """The first status of a group that is `enough`; also through times in which the store is unavailable.

    A zero that has come and gone in such a time counts only if the store tells of it afterwards. Unless `first_too`, the store must
    answer at first. Raises: NotFound if there is no such group; Deleted; Unavailable, at first.
    """
    created: float | None = None
    gone = f"wait group {name!r} was deleted while somebody waited for it: create it again, and tell its workers"
    while True:
        try:
            async with store.watch(name) as statuses:
                async for status in statuses:
                    outage.over()
                    if created not in (None, status.created):
                        raise Deleted(gone)
                    created = status.created
                    if enough(status):
                        return status
        except Unavailable as error:
            if created is None and not first_too:
                raise
            await outage.pause(error)
        except NotFound:
            if created is not None:
                raise Deleted(gone) from None
            raise

"""The verbs of `grouper waitgroup`: each a coroutine over a store, of whatever kind.

What a verb changes is changed once it returns. Whatever goes wrong after that, as a group that is deleted before its count can be
read, is no failure of the verb: a script that tries again after a failure would count twice.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final

from ..coordination.errors import TICKETS_AT_ONCE, CoordinationError, NotFound
from .exit_status import LOST, Lost, OutOfTime, UsageError
from .output import Answer, CountLine, describe, document, table
from .values import lasting

if TYPE_CHECKING:
    from ..coordination.model import Status
    from ..coordination.store import Store
    from .arguments import Arguments
    from .driving import Driver, Verb

__all__ = ["VERBS"]


async def create(store: Store, arguments: Arguments, driver: Driver) -> Answer:
    """Make a group."""
    made = await store.waitgroup(arguments.name).create(ttl=arguments.ttl, count=arguments.count)
    if arguments.output == "json":
        return await _as_json(store, arguments, created=made)
    if made:
        return Answer(f"{arguments.name}: created")
    but = f", so {arguments.count} were not added: use `add` for that" if arguments.count else ""
    return Answer(f"{arguments.name}: was there already{but}")


async def add(store: Store, arguments: Arguments, driver: Driver) -> Answer:
    """Count more."""
    as_json = arguments.output == "json"
    if arguments.tickets and arguments.delta > TICKETS_AT_ONCE:
        raise UsageError(f"waitgroup add: --delta {arguments.delta}: with --tickets at most {TICKETS_AT_ONCE}: use several calls")
    tickets = await store.waitgroup(arguments.name).add(
        arguments.delta,
        tickets=arguments.tickets or (as_json and arguments.delta <= TICKETS_AT_ONCE),
        expires_in=arguments.expires_in,
        token=arguments.token,
    )
    if as_json:
        return await _as_json(store, arguments, tickets=list(tickets))
    return Answer("\n".join(tickets)) if tickets else await _as_count(arguments, driver)


async def done(store: Store, arguments: Arguments, driver: Driver) -> Answer:
    """Count less."""
    changed = await store.waitgroup(arguments.name).done(arguments.delta, ticket=arguments.ticket, token=arguments.token)
    if arguments.output == "json":
        return await _as_json(store, arguments, changed=changed)
    return await _as_count(arguments, driver, "" if changed else " (as before: that ticket is settled, or ran out of time)")


async def _as_count(arguments: Arguments, driver: Driver, more: str = "") -> Answer:
    try:
        return Answer(f"{arguments.name}: {await driver.counter(arguments.name)}{more}")
    except NotFound:
        return Answer(f"{arguments.name}: deleted since")
    except CoordinationError as error:
        return Answer(f"{arguments.name}: not known", trouble=error)


async def _as_json(store: Store, arguments: Arguments, **more: object) -> Answer:
    try:
        return Answer(document=document(await store.status(arguments.name), **more))
    except NotFound:
        return Answer(document={"name": arguments.name, "spec": None, "status": None, **more})
    except CoordinationError as error:
        return Answer(document={"name": arguments.name, "spec": None, "status": None, **more}, trouble=error)


async def wait(store: Store, arguments: Arguments, driver: Driver) -> Answer:
    """Wait until a group counts zero."""
    name = arguments.name
    end = None if arguments.timeout is None else time.monotonic() + arguments.timeout
    last: Status | None = None

    def enough(status: Status) -> bool:
        nonlocal last
        last = status
        if not status.counter and (status.started or not arguments.started):
            return True
        line.show(status)
        if end is not None and time.monotonic() >= end:  # the limit is felt only by what sleeps
            raise TimeoutError
        return False

    try:
        with CountLine(sys.stderr) as line, driver.limit():
            status = await driver.until(name, enough)
    except TimeoutError:
        raise OutOfTime(f"wait group {name!r}: {_seen(last, lasting(arguments.timeout or 0.0))}") from None
    answer = Answer(f"{name}: Done", document(status))
    if status.lost:
        answer.text += f", {status.lost} lost"
        if not arguments.allow_lost:
            answer.trouble = Lost(
                f"wait group {name!r}: lost {status.lost}, whose process died or whose time ran out: "
                "do that work again, or say --allow-lost"
            )
            answer.status = LOST
    return answer


def _seen(status: Status | None, after: str) -> str:
    if status is None:
        return f"its store has not answered within {after}: see whether it runs and can be reached"
    counted = f"it still counts {status.counter}" if status.counter else "nothing was added yet"
    return f"{counted}, after {after}: `grouper waitgroup status` tells who is a member"


async def status(store: Store, arguments: Arguments, driver: Driver) -> Answer:
    """Tell what a group counts, and who is a member."""
    found = await store.waitgroup(arguments.name).status()
    return Answer(describe(found), document(found))


async def list_(store: Store, arguments: Arguments, driver: Driver) -> Answer:
    """Tell of all groups."""
    found = await store.list(arguments.prefix)
    rows = [(each.name, str(each.counter), each.phase.value, str(each.lost), str(len(each.members))) for each in found]
    text = table([("NAME", "COUNTER", "PHASE", "LOST", "MEMBERS"), *rows])
    return Answer(text, [document(each) for each in found])


async def delete(store: Store, arguments: Arguments, driver: Driver) -> Answer:
    """Remove a group."""
    deleted = await store.waitgroup(arguments.name).delete()
    text = "deleted" if deleted else "was not there"
    return Answer(f"{arguments.name}: {text}", {"name": arguments.name, "deleted": deleted})


async def run(store: Store, arguments: Arguments, driver: Driver) -> Answer:
    """Be a member while a command runs."""
    from .running import run_as_member

    return await run_as_member(store, arguments, driver)


VERBS: Final[dict[str, Verb]] = {
    "create": create,
    "add": add,
    "done": done,
    "wait": wait,
    "status": status,
    "list": list_,
    "delete": delete,
    "run": run,
}

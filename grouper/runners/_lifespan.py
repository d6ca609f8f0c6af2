"""The lifespan protocol of ASGI: tell an app to start up and to shut down, and learn how that went.

Hypercorn has its own, which is not used: it takes an app that raises while it starts up for one without a lifespan and serves it,
it fails if an app returns from its lifespan at once, and it answers what an app says when it is cancelled (Starlette: that its
shutdown failed) with an error in the place of the cancellation.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

import attrs
import trio

__all__ = ["ASGIApp", "Lifespan"]

ASGIApp: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]
Message: TypeAlias = MutableMapping[str, Any]

_LOG = logging.getLogger("grouper.http")


@attrs.define(eq=False)
class Lifespan:
    """One run of an app's lifespan. `run` is a task; `startup`, then `shutdown`, are awaited beside it.

    An app that raises before it asks for a message has no lifespan and is served without. From then on what it raises is an
    error: of `startup`, if that has not returned, and else of `run`. An app that only says that it failed raises a RuntimeError.
    """

    app: ASGIApp
    state: dict[str, Any] = attrs.field(factory=dict[str, Any], init=False)
    error: Exception | None = attrs.field(default=None, init=False)
    _complaint: str | None = attrs.field(default=None, init=False)
    _asked: int = attrs.field(default=0, init=False)
    _serving: bool = attrs.field(default=False, init=False)
    _started: trio.Event = attrs.field(factory=trio.Event, init=False)
    _stopping: trio.Event = attrs.field(factory=trio.Event, init=False)
    _finished: trio.Event = attrs.field(factory=trio.Event, init=False)

    async def run(self) -> None:
        """Run the app's lifespan until the app returns from it."""
        scope = {"type": "lifespan", "asgi": {"spec_version": "2.0", "version": "3.0"}, "state": self.state}
        try:
            await self.app(scope, self._receive, self._send)
        except Exception as error:
            if not self._asked and not self._started.is_set():
                _LOG.debug("the app has no lifespan: %r", error)
                return
            self.error = error
            if self._serving:
                raise
        finally:
            self._started.set()
            self._finished.set()

    async def startup(self) -> None:
        """Wait until the app has started. Raises: what the app raises meanwhile; RuntimeError if it says that it failed."""
        await self._started.wait()
        if self.error is not None:
            raise self.error
        if self._complaint is not None:
            raise RuntimeError(f"the app failed to start: {self._complaint}")
        self._serving = True

    async def shutdown(self) -> None:
        """Tell the app to shut down and wait until it has. Raises: RuntimeError if it says that it failed."""
        self._stopping.set()
        await self._finished.wait()
        if self._complaint is not None and self.error is None:
            raise RuntimeError(f"the app failed to shut down: {self._complaint}")

    async def _receive(self) -> Message:
        self._asked += 1
        if self._asked == 1:
            return {"type": "lifespan.startup"}
        await self._stopping.wait()
        if self._asked > 2:
            self._finished.set()  # it asks for more, which will never come, instead of returning
            await trio.sleep_forever()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        # No checkpoint: an app that says it failed and raises why does both in one step, so that the reason is known in time.
        kind = message["type"]
        if kind in ("lifespan.startup.failed", "lifespan.shutdown.failed"):
            self._complaint = str(message.get("message", ""))
        elif kind not in ("lifespan.startup.complete", "lifespan.shutdown.complete"):
            raise RuntimeError(f"the app sent {kind!r} in its lifespan, where only startup and shutdown are answered")
        self._started.set()

"""Between a store and its etcd: a proxy that cuts connections before a request was carried out, after it, or both."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import AsyncGenerator

import attrs
import trio

from grouper.coordination.etcd import EtcdStore, from_url

from .etcd_server import Etcd

__all__ = ["Fault", "Proxy", "proxied"]


class Fault(enum.Enum):
    """What happens to a request."""

    BEFORE = "the connection is cut, and etcd never gets it"
    AFTER = "etcd carries it out, and the connection is cut instead of an answer"
    LATE = "the connection is cut, and etcd gets it when it is released"
    NEVER = "nothing happens: etcd does not get it, and the connection stays"


@attrs.define
class Planned:
    """A fault that is to come."""

    fault: Fault
    path: str
    times: float
    mention: bytes


class Proxy:
    """Hands requests to an etcd, but for those that are to fail. `stuck` is set when one has met with `Fault.NEVER`."""

    def __init__(self, target: str) -> None:
        self.endpoint: str = ""
        self.late: list[bytes] = []
        self.stuck: trio.Event = trio.Event()
        self._open = trio.Event()
        self._open.set()
        self._target = target
        self._planned: list[Planned] = []
        self._serving = trio.CancelScope()
        self._gone = trio.Event()

    def fail(self, fault: Fault, path: str = "/v3/kv/txn", *, times: float = 1, mention: str = "") -> None:
        """Have the next requests fail that go to that path, and have such a text in them."""
        self._planned.append(Planned(fault, path, times, mention.encode()))

    def heal(self) -> None:
        """Let all requests through from now on."""
        self._planned.clear()

    async def release(self) -> None:
        """Have etcd carry out what is late."""
        while self.late:
            await self._carry_out(self.late.pop(0))

    async def _carry_out(self, request: bytes) -> None:
        async with await self._connect() as upstream:
            await upstream.send_all(request)
            assert await upstream.receive_some()

    def freeze(self) -> None:
        """Hand on nothing more, in either direction, as an etcd that is stopped."""
        self._open = trio.Event()

    def thaw(self) -> None:
        """Go on."""
        self._open.set()

    async def kill(self) -> None:
        """Be gone: cut all connections, and take no more."""
        self._serving.cancel()
        await self._gone.wait()

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Run until cancelled."""
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.endpoint = f"127.0.0.1:{listener.socket.getsockname()[1]}"
        with self._serving:
            await trio.serve_listeners(self._handle, [listener], task_status=task_status)  # type: ignore[arg-type]  # without listeners
        self._gone.set()

    async def _connect(self) -> trio.SocketStream:
        host, _, port = self._target.rpartition(":")
        return await trio.open_tcp_stream(host, int(port))

    async def _handle(self, client: trio.SocketStream) -> None:
        try:
            async with client, await self._connect() as upstream, trio.open_nursery() as nursery:
                nursery.start_soon(self._answers, upstream, client)
                while (request := await _request(client)) is not None:
                    if not await self._pass(request, client, upstream):
                        break
                nursery.cancel_scope.cancel()
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def _pass(self, request: bytes, client: trio.SocketStream, upstream: trio.SocketStream) -> bool:
        """Do with a request what is to be done; whether the connection goes on."""
        path = request.split(b" ", 2)[1].decode()
        await self._open.wait()
        fault = self._fault(path, request)
        if fault is None:
            await upstream.send_all(request)
        elif fault is Fault.LATE:
            self.late.append(request)
        elif fault is Fault.AFTER:
            await self._carry_out(request)
        elif fault is Fault.NEVER:
            self.stuck.set()
            await trio.sleep_forever()
        return fault is None

    def _fault(self, path: str, request: bytes) -> Fault | None:
        for planned in self._planned:
            if planned.path == path and planned.mention in request and planned.times > 0:
                planned.times -= 1
                return planned.fault
        return None

    async def _answers(self, upstream: trio.SocketStream, client: trio.SocketStream) -> None:
        async for data in upstream:
            await self._open.wait()
            await client.send_all(data)
        await client.send_eof()


async def _request(stream: trio.SocketStream) -> bytes | None:
    """The next request, None at the end. The client sends one after the other."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = await stream.receive_some()
        if not more:
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    (length,) = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    while len(body) < length:
        body += await stream.receive_some()
    return head + b"\r\n\r\n" + body


@contextlib.asynccontextmanager
async def proxied(
    etcd: Etcd, prefix: str, *, proxies: int = 1, timeout: float = 10.0, lease: float = 10.0
) -> AsyncGenerator[tuple[EtcdStore, list[Proxy]]]:
    """A store whose endpoints are proxies of a node."""
    made = [Proxy(etcd.endpoints[0]) for _ in range(proxies)]
    async with trio.open_nursery() as nursery:
        for proxy in made:
            await nursery.start(proxy.serve)
        store = from_url(f"etcd://{','.join([proxy.endpoint for proxy in made])}/{prefix}", timeout=timeout, lease=lease)
        try:
            async with store:
                yield store, made
        finally:
            nursery.cancel_scope.cancel()

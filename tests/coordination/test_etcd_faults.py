"""etcd that cannot be reached, answers late or not at all, says no, or is something else: what a call does then."""

from __future__ import annotations

import enum
import functools
import itertools
import os
import re
import socket
import struct
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trustme

from grouper.coordination import NotFound, Unavailable, WaitGroup, open_store
from grouper.coordination.etcd import EtcdStore, from_url, gateway

from .etcd_proxy import Fault, Proxy, proxied
from .etcd_server import Etcd, free_port, running

pytestmark = pytest.mark.real_time

numbers = itertools.count(1)


def prefix() -> str:
    return f"faults-{os.getpid()}-{next(numbers)}"


@asynccontextmanager
async def group_behind(etcd: Etcd, *, timeout: float = 10.0) -> AsyncGenerator[tuple[WaitGroup, Proxy]]:
    """A group of 5 whose store speaks to etcd through a proxy."""
    async with proxied(etcd, prefix(), timeout=timeout) as (store, (proxy,)):
        group = store.waitgroup("batch")
        await group.create(count=5)
        yield group, proxy


async def counter(group: WaitGroup) -> int:
    return (await group.status()).counter


CHANGES: list[tuple[Callable[[WaitGroup], Awaitable[object]], int]] = [
    (lambda group: group.add(3), 8),
    (lambda group: group.add(3, expires_in=60), 8),
    (lambda group: group.done(2), 3),
]


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER, Fault.LATE])
@pytest.mark.parametrize(("change", "expected"), CHANGES, ids=["add", "add with deadlines", "done"])
async def test_change_whose_answer_does_not_come_is_made_once(
    etcd: Etcd, fault: Fault, change: Callable[[WaitGroup], Awaitable[object]], expected: int
) -> None:
    """Whether it was carried out or not, or will be at some time later."""
    async with group_behind(etcd) as (group, proxy):
        proxy.fail(fault, mention="request_put")
        proxy.fail(fault, mention="request_put")
        await change(group)
        assert await counter(group) == expected
        await proxy.release()
        assert await counter(group) == expected


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
async def test_group_is_made_once(etcd: Etcd, fault: Fault) -> None:
    """And whoever made it knows it; the same for deleting it."""
    async with proxied(etcd, prefix()) as (store, (proxy,)):
        group = store.waitgroup("batch")
        proxy.fail(fault)
        assert await group.create(count=2)
        assert not await group.create()
        proxy.fail(fault)
        assert await group.delete()
        assert not await group.delete()


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
async def test_group_with_a_ttl_outlives_an_answer_that_does_not_come(etcd: Etcd, fault: Fault) -> None:
    """The lease that it may be under is not revoked."""
    async with proxied(etcd, prefix()) as (store, (proxy,)):
        group = store.waitgroup("batch")
        await group.create(ttl=60, count=1)
        proxy.fail(fault, mention="ignore_value")
        await group.done()
        assert await counter(group) == 0
        (lease,) = [lease for key, lease in etcd.keys(store.session().keys.groups()).items() if key.endswith("/g")]
        assert lease != "0"


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
async def test_ticket_is_settled_once(etcd: Etcd, fault: Fault) -> None:
    """The call that settled it says so."""
    async with group_behind(etcd) as (group, proxy):
        (ticket,) = await group.add(tickets=True)
        proxy.fail(fault)
        assert await group.done(ticket=ticket)
        assert not await group.done(ticket=ticket)


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
async def test_tickets_of_a_repeated_request_are_the_first_ones(etcd: Etcd, fault: Fault) -> None:
    """They can be settled by the ids that came back."""
    async with group_behind(etcd) as (group, proxy):
        proxy.fail(fault)
        tickets = await group.add(2, tickets=True, expires_in=60)
        assert [await group.done(ticket=ticket) for ticket in tickets] == [True, True]


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
async def test_entry_is_registered_and_withdrawn_once(etcd: Etcd, fault: Fault) -> None:
    """Nobody is in its own way, and whoever withdraws knows that it did."""
    async with group_behind(etcd) as (group, proxy), group.store.owner():
        for space in ("member", "lock"):
            proxy.fail(fault)
            entry = await group.store.register(space, "batch", "w1", "")
            assert await group.store.entries(space, "batch") == (entry,)
            proxy.fail(fault)
            assert await group.store.withdraw(space, entry)
            assert await group.store.entries(space, "batch") == ()
            assert not await group.store.withdraw(space, entry)
        status = await group.status()
        assert (status.counter, status.lost) == (5, 0)


async def test_registration_that_comes_late_makes_no_ghost(etcd: Etcd) -> None:
    """It would count for ever, under a lease that is kept alive, after the member has left."""
    async with group_behind(etcd) as (group, proxy), group.store.owner():
        for space in ("member", "lock"):
            proxy.fail(Fault.LATE)
            entry = await group.store.register(space, "batch", "w1", "")
            assert len(proxy.late) == 1
            assert await group.store.withdraw(space, entry)
            await proxy.release()
            assert await group.store.entries(space, "batch") == ()
        assert await counter(group) == 5


@pytest.mark.parametrize("fault", [Fault.AFTER, Fault.LATE, Fault.NEVER])
async def test_cancelled_registration_leaves_nothing(etcd: Etcd, fault: Fault) -> None:
    """Also if its request was carried out without an answer, or is so later."""
    async with group_behind(etcd) as (group, proxy), group.store.owner():
        await group.store.register("lock", "other", "x", "")
        proxy.fail(fault)
        proxy.fail(Fault.NEVER)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(group.store.register, "member", "batch", "w1", "")
                await proxy.stuck.wait()
                proxy.heal()
                scope.cancel()
        await proxy.release()
        status = await group.status()
        assert (status.counter, status.members, status.lost) == (5, (), 0)


async def test_registration_that_cannot_be_taken_back_is_taken_back_later(etcd: Etcd, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the task that tends the lease, when etcd can be reached again."""
    monkeypatch.setattr("grouper.coordination.etcd.entries.UNDO", 0.1)
    async with proxied(etcd, prefix(), timeout=0.5, lease=2.0) as (store, (proxy,)), store.owner():
        group = store.waitgroup("batch")
        await group.create()
        await store.register("lock", "other", "x", "")
        proxy.fail(Fault.AFTER, mention="ignore_value")
        proxy.fail(Fault.BEFORE, times=1000)
        with pytest.raises(Unavailable, match="not known") as caught:
            await store.register("member", "batch", "w1", "")
        assert caught.value.token is not None
        proxy.heal()
        assert await counter(group) == 1
        with trio.fail_after(10):
            assert (await group.wait()).lost == 0


async def test_registration_is_taken_back_before_the_last_block_ends(etcd: Etcd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would go with the lease, and be counted as lost."""
    monkeypatch.setattr("grouper.coordination.etcd.entries.UNDO", 0.1)
    async with proxied(etcd, prefix(), timeout=0.3) as (store, (proxy,)):
        group = store.waitgroup("batch")
        await group.create()
        async with store.owner():
            proxy.fail(Fault.AFTER, mention="ignore_value")
            proxy.fail(Fault.BEFORE, times=1000)
            with pytest.raises(Unavailable, match="not known"):
                await store.register("member", "batch", "w1", "")
            proxy.heal()
        status = await group.status()
        assert (status.started, status.counter, status.lost) == (True, 0, 0)


async def test_call_that_gives_up_says_whether_something_was_changed(etcd: Etcd) -> None:
    """With a token if that is not known: the same call with it makes the change once."""
    async with group_behind(etcd, timeout=0.3) as (group, proxy):
        for change in (group.add, group.done):
            before = await counter(group)
            for fault in (Fault.AFTER, Fault.BEFORE):
                proxy.fail(fault, mention="request_put")
                proxy.fail(Fault.BEFORE, times=1000, mention="request_put")
                with pytest.raises(Unavailable, match="whether the change was made is not known") as caught:
                    await change(2)
                proxy.heal()
                token = caught.value.token
                assert token is not None
                await change(2, token=token)
                await change(2, token=token)
            assert await counter(group) == before + 4 * (1 if change == group.add else -1)
            before = await counter(group)
        with pytest.raises(Unavailable) as caught:
            proxy.fail(Fault.NEVER, times=1000)
            await group.status()
        assert caught.value.token is None


async def test_server_that_is_not_there_is_told_in_time() -> None:
    """After the timeout; nothing was changed."""
    port = free_port()
    store = open_store(f"etcd://127.0.0.1:{port}/p", timeout=0.2)
    began = time.monotonic()
    async with store:
        for call in (store.waitgroup("batch").status, store.waitgroup("batch").add, store.waitgroup("batch").create, store.list):
            with pytest.raises(Unavailable, match=rf"etcd at 127.0.0.1:{port}: no answer within 0.2 s") as caught:
                await call()
            assert caught.value.token is None
            assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 10


async def test_another_endpoint_is_asked(etcd: Etcd) -> None:
    """Where one is not there, or is stopped and says nothing; the next call does not ask that one first."""
    async with proxied(etcd, prefix()) as (healthy, (proxy,)):
        for silent in (False, True):
            with open_silent() as endpoint:
                gone = endpoint if silent else f"127.0.0.1:{free_port()}"
                async with open_store(f"etcd://{gone},{proxy.endpoint}/{healthy.session().keys.prefix}") as store:
                    with trio.fail_after(9):
                        for _ in range(5):
                            await store.list()


def open_silent() -> SilentServer:
    return SilentServer()


class SilentServer:
    """What a stopped etcd is: connections are taken by the kernel, and nobody speaks."""

    def __enter__(self) -> str:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(100)
        return f"127.0.0.1:{self._socket.getsockname()[1]}"

    def __exit__(self, *error: object) -> None:
        self._socket.close()


async def test_endpoint_that_is_too_slow_for_whoever_asks_is_not_asked_first_again(etcd: Etcd) -> None:
    """Though each call is given up before its own time is over."""
    async with proxied(etcd, prefix()) as (healthy, (proxy,)):
        with open_silent() as endpoint:
            async with from_url(f"etcd://{endpoint},{proxy.endpoint}/{healthy.session().keys.prefix}") as store:
                store.session().gateway._place = 0
                with trio.move_on_after(0.6) as scope:
                    await store.list()
                assert scope.cancelled_caught
                with trio.fail_after(1):
                    assert await store.list() == ()


async def test_silent_server_is_given_up_in_time() -> None:
    """All endpoints may be silent."""
    with open_silent() as one, open_silent() as two:
        async with open_store(f"etcd://{one},{two}/p", timeout=0.5) as store:
            with trio.fail_after(5), pytest.raises(Unavailable, match=r"no answer within 0.5 s"):
                await store.list()


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnope", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"],
)
async def test_server_that_is_no_etcd_is_told_at_once(answer: bytes) -> None:
    """By what it answers."""

    async def speak(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(functools.partial(trio.serve_tcp, speak, 0, host="127.0.0.1"))
        url = f"etcd://127.0.0.1:{listener.socket.getsockname()[1]}/p"
        async with open_store(url, timeout=100) as store:
            with pytest.raises(Unavailable, match="it is no etcd"):
                await store.list()
        nursery.cancel_scope.cancel()


async def test_missing_extra_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to install."""
    monkeypatch.setitem(sys.modules, "httpx2", None)
    async with open_store("etcd://127.0.0.1:1/p") as store:
        with pytest.raises(Unavailable, match=r'pip install "trio-grouper\[etcd\]"'):
            await store.list()


async def test_proxies_of_the_environment_are_not_used(etcd: Etcd, monkeypatch: pytest.MonkeyPatch) -> None:
    """They lead elsewhere."""
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    async with open_store(f"{etcd.url}/{prefix()}", timeout=2) as store:
        assert await store.list() == ()


async def test_calls_at_the_same_time_are_bounded(etcd: Etcd) -> None:
    """A thousand tasks need no thousand connections."""
    async with open_store(f"{etcd.url}/{prefix()}") as store:
        group = store.waitgroup("batch")
        await group.create()
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(group.add)
        assert await counter(group) == 200


# --- logging in


@pytest.fixture(scope="module")
def guarded() -> Iterator[Etcd]:
    """An etcd that asks for a user: root may do all, `worker` may use /mine/ alone."""
    with running(options=["--auth-token-ttl=1"]) as etcd:
        end = {"key": "L21pbmUv", "range_end": "L21pbmUw"}  # /mine/ to /mine0
        etcd.post("/v3/auth/role/add", {"name": "mine"})
        etcd.post("/v3/auth/role/grant", {"name": "mine", "perm": {"permType": "READWRITE", **end}})
        for user, password, role in (("root", "top", "root"), ("worker", "p@ss:w/rd", "mine")):
            etcd.post("/v3/auth/user/add", {"name": user, "password": password})
            etcd.post("/v3/auth/user/grant", {"user": user, "role": role})
        etcd.post("/v3/auth/enable", {})
        yield etcd


def login(etcd: Etcd, user: str, rest: str) -> EtcdStore:
    return from_url(etcd.url.replace("//", f"//{user}@") + rest)


async def test_user_and_password_are_used(guarded: Etcd) -> None:
    """For calls, members and streams, also after the login has run out."""
    async with login(guarded, "worker:p%40ss%3Aw%2Frd", "/mine") as store:
        group = store.waitgroup("batch")
        await group.create(count=1)
        async with group.member("w1"):
            await group.done()
            store.session().gateway._login = "run-out.1"
            assert await counter(group) == 1
        assert (await group.wait()).counter == 0
        await group.delete()


@pytest.mark.parametrize(
    ("user", "rest", "fix"),
    [
        ("worker:wrong", "/mine", "the user or the password is wrong"),
        ("nobody:x", "/mine", "the user or the password is wrong"),
        ("worker:p%40ss%3Aw%2Frd", "/others", "give the user's role `readwrite`"),
    ],
)
async def test_login_that_is_refused_is_told_at_once(guarded: Etcd, user: str, rest: str, fix: str) -> None:
    """Asking again is no use. The password is not shown."""
    async with login(guarded, user, rest) as store:
        with trio.fail_after(8), pytest.raises(Unavailable, match=fix) as caught:
            await store.waitgroup("batch").create()
        assert caught.value.token is None
        assert "wrong@" not in str(caught.value)


async def test_login_that_is_missing_is_told(guarded: Etcd) -> None:
    """With what to write."""
    async with open_store(f"{guarded.url}/mine") as store:
        with pytest.raises(Unavailable, match="write etcd://USER:PASSWORD@"):
            await store.list()


async def test_login_that_nobody_asks_for_is_no_error(etcd: Etcd) -> None:
    """On an etcd without users."""
    async with login(etcd, "me:secret", f"/{prefix()}") as store:
        with pytest.raises(NotFound):
            await store.waitgroup("batch").status()


# --- TLS


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Etcd, Path]]:
    """An etcd that wants a certificate of its clients, and a folder with ca.pem, client.pem, client.key, other-ca.pem."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    trustme.CA().cert_pem.write_to_path(folder / "other-ca.pem")
    for name in ("server", "client"):
        cert = authority.issue_cert("127.0.0.1", "localhost")
        cert.private_key_pem.write_to_path(folder / f"{name}.key")
        for number, blob in enumerate(cert.cert_chain_pems):
            blob.write_to_path(folder / f"{name}.pem", append=number > 0)
    options = [
        f"--cert-file={folder}/server.pem",
        f"--key-file={folder}/server.key",
        f"--trusted-ca-file={folder}/ca.pem",
        "--client-cert-auth",
    ]
    with running(options=options, scheme="https") as etcd:
        yield etcd, folder


async def test_tls_is_spoken(secure: tuple[Etcd, Path]) -> None:
    """With this client's certificate; for streams too."""
    etcd, folder = secure
    async with open_store(f"{etcd.url}/p?ca={folder}/ca.pem&cert={folder}/client.pem&key={folder}/client.key") as store:
        group = store.waitgroup("batch")
        await group.create(count=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(group.wait)
            await group.done()


@pytest.mark.parametrize(
    ("query", "fix"),
    [
        ("ca={}/other-ca.pem&cert={}/client.pem&key={}/client.key", r"not trusted.*\?ca=PATH"),
        ("ca={}/ca.pem", r"\?cert=PATH&key=PATH"),
        ("ca={}/missing.pem", "missing.pem' for TLS cannot be used"),
        ("ca={}/ca.pem&cert={}/client.pem&key={}/server.key", "server.key' for TLS cannot be used"),
    ],
    ids=["other authority", "no certificate", "no file", "key of another certificate"],
)
async def test_tls_that_fails_is_told_at_once(secure: tuple[Etcd, Path], query: str, fix: str) -> None:
    """With what to write."""
    etcd, folder = secure
    async with open_store(f"{etcd.url}/p?{query.format(*[folder] * 3)}", timeout=100) as store:
        with trio.fail_after(7), pytest.raises(Unavailable, match=fix) as caught:
            await store.waitgroup("batch").create()
        assert "\n" not in str(caught.value)


async def failure(scheme: str, endpoint: str, *, tries: int = 1) -> gateway.Failed:
    """How the last of so many requests fails."""
    async with from_url(f"{scheme}://{endpoint}/p") as store:
        asks = store.session().gateway
        for _ in range(tries - 1):
            await asks._exchange(asks.current, "/v3/kv/range", b"{}", None, gateway.Call(10.0))
        with pytest.raises(gateway.Failed) as caught:
            await asks._exchange(asks.current, "/v3/kv/range", b"{}", None, gateway.Call(10.0))
        return caught.value


async def test_wrong_scheme_is_told(etcd: Etcd, secure: tuple[Etcd, Path]) -> None:
    """As far as it can be: an etcd says nothing, and closes or resets the connection as the random bytes of a handshake have it."""
    for endpoint, scheme, other in ((etcd.endpoints[0], "etcds", "etcd"), (secure[0].endpoints[0], "etcd", "etcds")):
        failed = await failure(scheme, endpoint)
        assert f"write {other}:// instead of {scheme}://" in str(failed)


class Way(enum.Enum):
    """How a connection ends."""

    CLOSED = enum.auto()
    RESET = enum.auto()


@asynccontextmanager
async def ending(way: Way, *says: bytes) -> AsyncGenerator[str]:
    """A server that hears a request before each thing that it says, and ends the connection in that way after the last."""

    async def speak(stream: trio.SocketStream) -> None:
        for word in says:
            await hear(stream)
            await stream.send_all(word)
        if way is Way.CLOSED:
            await stream.send_eof()
            async for _ in stream:
                pass
        else:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def hear(stream: trio.SocketStream) -> None:
        heard = b""
        while not heard.startswith(b"\x16") and not heard.endswith(b"{}"):  # a handshake is in one piece here
            heard += await stream.receive_some()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(functools.partial(trio.serve_tcp, speak, 0, host="127.0.0.1"))
        yield f"127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("scheme", "other", "way", "how"),
    [
        ("etcds", "etcd", Way.CLOSED, "TLS fails"),
        ("etcds", "etcd", Way.RESET, "it resets the connection in the TLS handshake"),
        ("etcd", "etcds", Way.CLOSED, "no whole answer in HTTP comes"),
        ("etcd", "etcds", Way.RESET, "it resets the connection"),
    ],
)
async def test_wrong_scheme_is_told_where_the_other_side_says_nothing(scheme: str, other: str, way: Way, how: str) -> None:
    """However it ends the connection. It may as well be that it breaks down just then, so that is asked again."""
    async with ending(way, b"") as endpoint:
        failed = await failure(scheme, endpoint)
    assert re.fullmatch(rf"{how} \(.*; if it .*TLS, write {other}:// instead of {scheme}://\)", str(failed))
    assert (failed.sent, failed.hopeless) == (scheme == "etcd", False)


@pytest.mark.parametrize(
    ("scheme", "other", "word", "hopeless"),
    [
        ("etcds", "etcd", b"HTTP/1.1 400 Bad Request\r\n\r\n", True),
        ("etcd", "etcds", b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n", True),
        ("etcd", "etcds", b"\x15\x03\x01\x00\x02\x02\x0a", False),  # a TLS alert: unexpected message
    ],
    ids=["HTTP to TLS", "HTTP to HTTP", "alert to HTTP"],
)
async def test_wrong_scheme_is_told_by_what_the_other_side_says(scheme: str, other: str, word: bytes, hopeless: bool) -> None:
    """A server of HTTP answers a handshake with a refusal, one of TLS a request with a refusal or an alert."""
    async with ending(Way.CLOSED, word) as endpoint:
        failed = await failure(scheme, endpoint)
    assert f"write {other}:// instead of {scheme}://" in str(failed)
    assert failed.hopeless == hopeless


@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize(
    ("says", "tries"),
    [
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", b""], 2),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"], 1),
    ],
    ids=["after an answer", "within an answer"],
)
async def test_scheme_is_not_blamed_when_there_was_an_answer(way: Way, says: list[bytes], tries: int) -> None:
    """An etcd that is killed also ends its connections."""
    async with ending(way, *says) as endpoint:
        failed = await failure("etcd", endpoint, tries=tries)
    assert "instead of" not in str(failed)
    assert failed.sent


def test_text_of_a_full_etcd_says_what_to_do() -> None:
    """The advice is a table, from which each text is one line."""
    for said, advice in gateway.ADVICE:
        assert said
        assert advice
        assert "\n" not in advice

"""Requests to etcd's JSON gateway: to whichever endpoint answers, until one does or the time is over.

Three kinds of failure are told apart. Where a connection could not be made, nothing was sent, and another endpoint may be asked.
Where a request was sent and not answered, it may have been carried out, or may yet be: it is sent again all the same, since all
that is sent here does nothing the second time, but from then on it is unsure what a call that gives up has changed. And where
etcd, or what is in its place, said no, asking again is no use.

An endpoint that is stopped (SIGSTOP, a machine that hangs) takes connections and requests and says nothing: a try has its own time,
after which the next endpoint is asked.
"""

from __future__ import annotations

import json
import random
import ssl
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final

import trio

from ..errors import Unavailable
from .address import Address
from .wire import JSON, Answer, Messages

if TYPE_CHECKING:
    import httpx2

__all__ = ["Call", "Gateway", "Refused"]

TRY: Final = 2.0
"""Seconds for a connection, and for each piece of an answer."""
CLOSE: Final = 2.0
"""Seconds for closing connections."""
CLEAN: Final = 0.02
"""Seconds by which a try ends before its call: the HTTP client leaves a socket open where it is cancelled in a TLS handshake."""
SLOW: Final = 0.5
"""Seconds of a try that was cancelled, after which the next call begins with another endpoint."""
AT_ONCE: Final = 32
"""Requests at a time: more of them only wait in another place, and cost more there."""
FIRST: Final = 0.05
LONGEST: Final = 1.0
"""Seconds between tries: a random part of the first, then of twice as much, up to the longest."""

AGAIN: Final = frozenset({1, 2, 4, 8, 13, 14})
"""gRPC's codes for what may go away: cancelled, unknown, deadline, too many requests, internal, unavailable."""

EXPECTED: Final = ("requested lease not found", "lease already exists", "required revision has been compacted")
"""What etcd refuses, of which callers know what to do."""

STALE: Final = ("invalid auth token", "revision of auth store is old")
"""What etcd says when a login has run out."""

ADVICE: Final = (
    ("user name is empty", "it asks for a user and a password: write etcd://USER:PASSWORD@HOST:2379/PREFIX"),
    ("authentication failed", "the user or the password is wrong: correct them in the url of the store"),
    ("permission denied", "its user may not do that: give the user's role `readwrite` on the store's prefix"),
    ("database space exceeded", "it is full: compact and defragment it, then `etcdctl alarm disarm`"),
    ("too many operations in txn", "it allows too few operations in a transaction: start it with --max-txn-ops=128 or more"),
)
"""What to do about other things that it says."""

OTHER_SCHEME: Final = (
    "; if it speaks TLS, write etcds:// instead of etcd://",
    "; if it does not speak TLS, write etcd:// instead of etcds://",
)
"""What to do where a connection ends without an answer, and none ever came: without TLS, and with it."""


class Refused(Exception):  # noqa: N818 (callers know what to do)
    """etcd refused a request for a reason in `EXPECTED`, and changed nothing."""


class Failed(Exception):  # noqa: N818 (it goes no further than this module)
    """A try did not come to an answer. `sent` tells whether it may have been carried out, `hopeless` that the next will not."""

    def __init__(self, text: str, *, sent: bool, hopeless: bool = False) -> None:
        super().__init__(text)
        self.sent: bool = sent
        self.hopeless: bool = hopeless


class Call:
    """One call of a store's method, in which there may be several requests: the time it has, and that of each try.

    `sent` tells whether the request of this try was sent, `answered` whether the head of an answer to it has come, `unsure` whether
    one before was sent whose answer did not come.
    """

    __slots__ = ("answered", "deadline", "each", "sent", "token", "unsure")

    def __init__(self, seconds: float, token: str | None = None, *, each: float | None = None) -> None:
        self.deadline: float = trio.current_time() + seconds
        self.each: float = TRY if each is None else each
        self.token: str | None = token
        self.unsure: bool = False
        self.sent: bool = False
        self.answered: bool = False

    async def trace(self, event: str, info: object) -> None:
        """What the HTTP client calls at each step: from the first of these on the request may arrive, at the second it did."""
        if event == "http11.send_request_headers.started":
            self.sent = True
        elif event == "http11.receive_response_headers.complete":
            self.answered = True

    async def pause(self, tries: int, first: float = FIRST, longest: float = LONGEST) -> None:
        """Sleep for a random time between tries: those who failed together do not come back together."""
        await trio.sleep(random.uniform(0, min(longest, first * 2 ** min(tries, 20))))


class Gateway:
    """The endpoints of an etcd, as one `trio.run` uses them. Connects when it is first used, and again after `aclose`."""

    def __init__(self, address: Address, timeout: float) -> None:
        self.address: Address = address
        self.timeout: float = timeout
        self._place = random.randrange(len(address.bases))
        self._http: httpx2.AsyncClient | None = None
        self._known: set[str] = set()  # the endpoints that have answered in the scheme of the url
        self._at_once = trio.CapacityLimiter(AT_ONCE)
        self._login: str | None = None
        self._logging_in = trio.Lock()

    @property
    def current(self) -> str:
        """The endpoint that is asked next."""
        return self.address.bases[self._place]

    def avoid(self, base: str) -> None:
        """Ask another endpoint than this one from now on, if there is one."""
        if base == self.current:
            self._place = (self._place + 1) % len(self.address.bases)

    async def aclose(self) -> None:
        """Close the connections, within `CLOSE` seconds."""
        http, self._http = self._http, None
        if http is not None:
            with trio.move_on_after(CLOSE, shield=True):
                await http.aclose()

    async def txn(self, compare: list[JSON], success: list[JSON], failure: list[JSON], call: Call) -> Answer:
        """Make a transaction. Raises: Unavailable, Refused."""
        return Answer(await self.post("/v3/kv/txn", {"compare": compare, "success": success, "failure": failure}, call))

    async def read(self, operations: list[JSON], call: Call) -> Answer:
        """Read at one instant. Raises: Unavailable, Refused."""
        return Answer(await self.post("/v3/kv/txn", {"success": operations}, call, reads=True))

    async def post(self, path: str, body: JSON, call: Call, *, reads: bool = False, urgent: bool = False) -> JSON:
        """Send a request that does nothing more when it is sent twice, and return the answer.

        Raises: Unavailable, with the call's token if it may have been carried out; Refused.
        """
        content = json.dumps(body, separators=(",", ":")).encode()
        hopeless: dict[str, str] = {}
        why = "all is too slow"
        tries = 0
        while True:
            call.sent = False
            with trio.move_on_at(call.deadline) as scope:
                base = self.current
                try:
                    async with nullcontext() if urgent else self._at_once:
                        base = self.current
                        return await self._ask(base, path, content, call)
                except Failed as failed:
                    call.sent = False
                    why = f"{base.partition('//')[2]}: {failed}"
                    call.unsure |= failed.sent and not reads
                    self.avoid(base)
                    if failed.hopeless:
                        hopeless[base] = why
                tries += 1
                if len(hopeless) == len(self.address.bases):
                    raise self._unavailable(why, call)
                if not tries % len(self.address.bases):
                    await call.pause(tries // len(self.address.bases) - 1)
            if scope.cancelled_caught or trio.current_time() >= call.deadline:
                call.unsure |= call.sent and not reads
                raise self._unavailable(
                    f"no answer within {self.timeout:g} s: see whether it runs and can be reached ({why})", call
                )

    def _unavailable(self, why: str, call: Call) -> Unavailable:
        text = f"etcd at {self.address.where}: {why}"
        if call.unsure:
            text += "; whether the change was made is not known"
        return Unavailable(text, call.token if call.unsure else None)

    async def _ask(self, base: str, path: str, content: bytes, call: Call) -> JSON:
        """One try. Raises: Failed, Refused, Unavailable."""
        stale = 0
        while True:
            try:
                login = await self._logged_in(base, call)
            except Failed as failed:  # the request itself was not sent
                raise Failed(str(failed), sent=False, hopeless=failed.hopeless) from failed
            call.sent = False
            status, answer = await self._exchange(base, path, content, login, call)
            if status == 200:
                return answer
            code, message = int(answer.get("code", 2)), str(answer.get("message") or answer.get("error"))
            if any(each in message for each in STALE) and stale < 2 and self.address.user is not None:
                stale += 1
                if self._login == login:
                    self._login = None
                continue
            raise self._refusal(code, message, call)

    def _refusal(self, code: int, message: str, call: Call) -> Exception:
        message = message.removeprefix("etcdserver: ")
        if any(each in message for each in EXPECTED):
            return Refused(message)
        for said, advice in ADVICE:
            if said in message:
                return self._unavailable(advice, call)
        if code in AGAIN:
            return Failed(message, sent=True)
        return self._unavailable(f"it refuses this: {message}", call)

    async def _logged_in(self, base: str, call: Call) -> str | None:
        """The token of the login, None without a user. Raises: Failed, Unavailable."""
        address = self.address
        if address.user is None or self._login is not None:
            return self._login
        async with self._logging_in:
            if self._login is None:
                content = json.dumps({"name": address.user, "password": address.password}).encode()
                status, answer = await self._exchange(base, "/v3/auth/authenticate", content, None, call)
                if status == 200:
                    self._login = str(answer["token"])
                elif "authentication is not enabled" in str(answer.get("error")):
                    self._login = ""
                else:
                    raise self._refusal(int(answer.get("code", 2)), str(answer.get("error")), call)
        return self._login

    async def _exchange(self, base: str, path: str, content: bytes, login: str | None, call: Call) -> tuple[int, JSON]:
        """Send a request to one endpoint; the status and what it said. Raises: Failed."""
        httpx2 = _httpx2()
        began = trio.current_time()
        each = min(call.each, max(0.0, call.deadline - began - CLEAN))
        call.answered = False
        try:
            response = await self._client().post(
                base + path,
                content=content,
                headers=_headers(login),
                timeout=httpx2.Timeout(each, pool=None),
                extensions={"trace": call.trace},
            )
        except trio.Cancelled:
            if trio.current_time() - began >= SLOW:
                self.avoid(base)
            raise
        except (httpx2.HTTPError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise _failure(error, tls=self.address.tls, known=call.answered or base in self._known) from error
        answer = _understood(response.status_code, response.content)
        self._known.add(base)
        return response.status_code, answer

    @asynccontextmanager
    async def stream(self, base: str, path: str, body: JSON) -> AsyncGenerator[AsyncGenerator[JSON]]:
        """The messages of an answer that goes on, from one endpoint. Raises: Failed, Unavailable; the iterator, Failed."""
        httpx2 = _httpx2()
        login = await self._logged_in(base, Call(self.timeout))
        content = json.dumps(body).encode()
        timeout = httpx2.Timeout(TRY, read=None, pool=None)
        try:
            async with self._client().stream(
                "POST", base + path, content=content, headers=_headers(login), timeout=timeout
            ) as answer:
                if answer.status_code != 200:
                    said = _understood(answer.status_code, await answer.aread())
                    raise Failed(str(said.get("message") or said.get("error")), sent=False)
                self._known.add(base)
                yield _messages(answer)
        except (httpx2.HTTPError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise _failure(error, tls=self.address.tls, known=base in self._known) from error

    def _client(self) -> httpx2.AsyncClient:
        http = self._http
        if http is None:
            httpx2 = _httpx2()
            verify = _context(self.address) if self.address.tls else False  # without TLS no certificates need be loaded
            limits = httpx2.Limits(max_connections=None, max_keepalive_connections=AT_ONCE)
            http = self._http = httpx2.AsyncClient(verify=verify, trust_env=False, limits=limits)
        return http


async def _messages(answer: httpx2.Response) -> AsyncGenerator[JSON]:
    messages = Messages()
    async with aclosing(answer.aiter_raw()) as pieces:
        async for data in pieces:
            try:
                found = messages.feed(data)
            except ValueError as error:
                raise Failed(f"its stream cannot be read: {error}", sent=False) from error
            for message in found:
                yield message


def _httpx2() -> Any:
    try:
        import httpx2
    except ImportError as error:
        raise Unavailable('an etcd:// store needs httpx2: pip install "trio-grouper[etcd]"') from error
    return httpx2


def _headers(login: str | None) -> dict[str, str]:
    headers = {"Content-Type": "application/json"}
    if login:
        headers["Authorization"] = login
    return headers


def _context(address: Address) -> ssl.SSLContext:
    path = address.ca
    try:
        context = ssl.create_default_context(cafile=path)
        if address.cert is not None:
            path = address.key or address.cert
            context.load_cert_chain(address.cert, address.key)
    except (OSError, ssl.SSLError) as error:
        raise Unavailable(
            f"etcd at {address.where}: the file {path!r} for TLS cannot be used ({error}): correct the url"
        ) from error
    return context


def _understood(status: int, content: bytes) -> JSON:
    """An answer as JSON. Raises: Failed."""
    try:
        answer: JSON | None = json.loads(content)
    except ValueError:
        answer = None
    if isinstance(answer, dict):
        return answer
    if status >= 500:
        raise Failed(f"it answers with status {status}", sent=True)
    if b"HTTPS server" in content:
        raise Failed("it speaks TLS: write etcds:// instead of etcd://", sent=False, hopeless=True)
    raise Failed("it is no etcd, or one without its JSON gateway: name another host or port", sent=False, hopeless=True)


def _failure(error: BaseException, *, tls: bool, known: bool) -> Failed:
    """What an error of the HTTP client means; `known` tells that the endpoint has answered, so that the scheme is right.

    Who is spoken to in the wrong scheme closes the connection, with a word about it or without. If it has not read all that it was
    sent, which for an etcd depends on whether there is a newline in the random bytes of the handshake, its system resets the
    connection instead, and a word need not arrive.
    """
    import httpx2

    connecting = isinstance(error, httpx2.ConnectError)
    sent = not (connecting or isinstance(error, httpx2.ConnectTimeout | httpx2.PoolTimeout | httpx2.UnsupportedProtocol))
    advice = "" if known else OTHER_SCHEME[tls]
    for each in _causes(error):
        if isinstance(each, ssl.SSLError):
            return _tls_failure(each, sent, advice)
    text = str(error).removesuffix(".") or type(error).__name__
    if isinstance(error, httpx2.RemoteProtocolError):
        return Failed(f"no whole answer in HTTP comes ({text}{advice})", sent=sent)
    if any(isinstance(each, ConnectionResetError | BrokenPipeError) for each in _causes(error)) and (tls or not connecting):
        return Failed(f"it resets the connection{' in the TLS handshake' * connecting} ({text}{advice})", sent=sent)
    return Failed(text, sent=sent)


def _causes(error: BaseException) -> Iterator[BaseException]:
    at: BaseException | None = error
    while at is not None:
        yield at
        at = at.__cause__ or at.__context__


def _tls_failure(error: ssl.SSLError, sent: bool, advice: str) -> Failed:
    reason = str(error.reason or error).replace("_", " ").lower()
    if isinstance(error, ssl.SSLCertVerificationError):
        said = error.verify_message
        return Failed(
            f"its certificate is not trusted ({said}): name the authority's file with ?ca=PATH", sent=False, hopeless=True
        )
    if "wrong version" in reason or "record layer" in reason:
        return Failed("it does not speak TLS: write etcd:// instead of etcds://", sent=False, hopeless=True)
    if "alert" in reason and ("certificate" in reason or "unknown ca" in reason):
        refused = f"it does not accept this client's certificate ({reason}): name one with ?cert=PATH&key=PATH"
        return Failed(refused, sent=False, hopeless=True)
    return Failed(f"TLS fails ({reason}{advice})", sent=sent)

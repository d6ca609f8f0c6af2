"""Where an etcd is and how to speak to it, from the url of a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import parse_qsl, quote, unquote

import attrs

__all__ = ["PREFIX", "Address", "parse"]

PREFIX: Final = "grouper"
PORT: Final = 2379
FORM: Final = "etcd://HOST:2379,HOST:2379/PREFIX, with USER:PASSWORD@ before the first host if etcd asks for them"
SECURE: Final = "etcds://HOST:2379/PREFIX?ca=PATH&cert=PATH&key=PATH, of which each path may be left out"


@attrs.frozen
class Address:
    """Where an etcd is. `endpoints` are `host:port`, all of one cluster; what is kept there is under `prefix`.

    Raises: TypeError, ValueError.
    """

    endpoints: tuple[str, ...]
    prefix: str
    tls: bool = attrs.field(default=False, kw_only=True)
    ca: str | None = attrs.field(default=None, kw_only=True)
    cert: str | None = attrs.field(default=None, kw_only=True)
    key: str | None = attrs.field(default=None, kw_only=True)
    user: str | None = attrs.field(default=None, kw_only=True)
    password: str = attrs.field(default="", kw_only=True, repr=False)

    def __attrs_post_init__(self) -> None:
        if not self.endpoints:
            raise ValueError(f"the url of an etcd names no host: write {FORM}")
        if not self.prefix or not self.prefix.isprintable() or "" in self.prefix.split("/"):
            raise ValueError(f"an etcd store's prefix is {self.prefix!r}: give it a name, or several with a single / between")
        if not self.tls and (self.ca or self.cert or self.key):
            raise ValueError(f"the url of an etcd has ca, cert or key, which are for TLS: write {SECURE}")
        if self.key and not self.cert:
            raise ValueError(f"the url of an etcd has a key without a cert: write {SECURE}")

    @property
    def where(self) -> str:
        """The hosts, as errors call them."""
        return ",".join(self.endpoints)

    @property
    def url(self) -> str:
        """The url, without user and password."""
        paths = {"ca": self.ca, "cert": self.cert, "key": self.key}
        query = "&".join([f"{name}={quote(path)}" for name, path in paths.items() if path is not None])
        return f"etcd{'s' * self.tls}://{self.where}/{quote(self.prefix)}{'?' * bool(query)}{query}"

    @property
    def bases(self) -> tuple[str, ...]:
        """What the urls of requests begin with, for each endpoint."""
        return tuple([f"http{'s' * self.tls}://{endpoint}" for endpoint in self.endpoints])


def parse(url: str) -> Address:
    """The address in a url such as `etcd://user:password@h1:2379,h2:2379/prefix`. Raises: ValueError that says what to write."""
    scheme, found, rest = url.partition("://")
    if scheme not in ("etcd", "etcds") or not found:
        raise ValueError(f"the url of an etcd begins with etcd:// or etcds://: write {FORM}")
    rest, _, query = rest.partition("?")
    hosts, _, prefix = rest.partition("/")
    login, _, hosts = hosts.rpartition("@")
    user, _, password = login.partition(":")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if wrong := sorted(options.keys() - {"ca", "cert", "key"}):
        raise ValueError(f"the url of an etcd has {wrong[0]!r} after the question mark: write {SECURE}")
    return Address(
        endpoints(hosts.split(",")) if hosts else (),
        unquote(prefix.rstrip("/")) or PREFIX,
        tls=scheme == "etcds",
        user=unquote(user) or None,
        password=unquote(password),
        **options,
    )


def endpoints(given: Sequence[str]) -> tuple[str, ...]:
    """The endpoints as `host:port`, 2379 where no port is given. Raises: TypeError, ValueError."""
    if isinstance(given, str):
        raise TypeError(f"the endpoints of an etcd are a list, not {given!r}: write [{given!r}]")
    return tuple([endpoint(each.strip()) for each in given])


def endpoint(given: str) -> str:
    """One endpoint as `host:port`. Raises: ValueError."""
    host, colon, port = given.rpartition(":")
    if not colon or port.endswith("]"):  # there is no port, or it is the address of an IPv6 host without one
        host, port = given, str(PORT)
    wild = host.strip("[]") if host.startswith("[") and host.endswith("]") else host.replace(":", "/")
    if not wild or set(wild) & set("/@?#[] ") or not wild.isprintable():
        raise ValueError(f"the url of an etcd has the host {given!r}: write {FORM}")
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"the url of an etcd has the port {port!r} in {given!r}: write {FORM}")
    return f"{host}:{int(port)}"

"""The urls of etcd stores."""

from __future__ import annotations

from typing import Any

import pytest

from grouper.coordination import Store, open_store
from grouper.coordination.etcd import EtcdStore, from_url
from grouper.coordination.etcd.address import parse


def test_url_names_hosts_and_prefix() -> None:
    """Several hosts of one cluster, with their ports."""
    address = parse("etcd://h1:2379,h2:4001/team-a/batch")
    assert (address.endpoints, address.prefix) == (("h1:2379", "h2:4001"), "team-a/batch")
    assert (address.tls, address.user, address.password) == (False, None, "")
    assert address.bases == ("http://h1:2379", "http://h2:4001")


def test_port_and_prefix_have_defaults() -> None:
    """The port is etcd's own, the prefix the project's name."""
    address = parse("etcd://h1,[::1],[fe80::1]:99/")
    assert (address.endpoints, address.prefix) == (("h1:2379", "[::1]:2379", "[fe80::1]:99"), "grouper")


def test_tls_has_its_own_scheme() -> None:
    """With the files it needs, which may have any name."""
    address = parse("etcds://h1/p?ca=/a%20b/ca.pem&cert=/c&key=/k")
    assert (address.tls, address.ca, address.cert, address.key) == (True, "/a b/ca.pem", "/c", "/k")
    assert address.bases == ("https://h1:2379",)
    assert parse(address.url) == address


def test_password_is_never_shown() -> None:
    """Not by the store, its url, its groups or its errors."""
    store = open_store("etcd://us%40er:s3cr%2Fet@h1/p")
    assert isinstance(store, EtcdStore)
    assert (store._address.user, store._address.password) == ("us@er", "s3cr/et")
    for shown in (store.url, repr(store), repr(store.waitgroup("g")), repr(store._address)):
        assert "s3cr" not in shown
    for wrong in ("etcd://user:s3cret@h1:x/p", "etcd://user:s3cret@/p", "etcd://user:s3cret@h1/p?cert=x"):
        with pytest.raises(ValueError, match="write etcd") as caught:
            open_store(wrong)
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "fix"),
    [
        ("etcd:", "etcd://HOST"),
        ("etcd:h1:2379", "etcd://HOST"),
        ("etcd://", "names no host"),
        ("etcd:///p", "names no host"),
        ("etcd://h1,,h2/p", "host ''"),
        ("etcd://h 1/p", "host 'h 1'"),
        ("etcd://h1:0/p", "port '0'"),
        ("etcd://h1:65536/p", "port '65536'"),
        ("etcd://h1:port/p", "port 'port'"),
        ("etcd://::1:2379/p", "host '::1:2379'"),
        ("etcd://h1//p", "prefix"),
        ("etcd://h1/p%0A", "prefix"),
        ("etcd://h1/p?ca=x", "for TLS"),
        ("etcds://h1/p?c=x", "after the question mark"),
        ("etcds://h1/p?key=x", "key without a cert"),
    ],
)
def test_malformed_url_is_refused(url: str, fix: str) -> None:
    """With a line that says what to write."""
    with pytest.raises(ValueError, match=r"write etcds?://|prefix") as caught:
        open_store(url)
    assert fix in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"lease": 0}, {"lease": -1}, {"timeout": 0}, {"timeout": float("nan")}, {"lease": "x"}])
def test_seconds_are_positive(options: dict[str, Any]) -> None:
    """Those of the lease, and of a call."""
    with pytest.raises(ValueError, match="not a number of seconds above 0"):
        from_url("etcd://h1/p", **options)


def test_store_can_be_made_without_a_url() -> None:
    """With the same parts."""
    store: Store = EtcdStore(["h1:2379", "h2"], "p", user="me", password="secret")
    assert store.url == "etcd://h1:2379,h2:2379/p"
    assert EtcdStore(["h1"], ca="/ca.pem").url == "etcds://h1:2379/grouper?ca=/ca.pem"
    with pytest.raises(TypeError, match=r"write \['h1'\]"):
        EtcdStore("h1")

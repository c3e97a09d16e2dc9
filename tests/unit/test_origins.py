"""Origins of pages, and where webhooks may lead."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from vault.errors import Invalid
from vault.protocol.facts.metadata import NotJson, Repeated, load_unique
from vault.protocol.origins import checked_origins
from vault.protocol.webhook import is_forbidden_address
from vault.services.tenants.tenants import Webhooks, resolve

PUBLIC = ("93.184.215.14", "2606:2800:21f::1", "::ffff:93.184.215.14")
WITHIN = (
    *("10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "127.0.0.1", "0.0.0.0", "100.64.0.1"),
    *("224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0", "fd00::1", "ff02::1", "::ffff:10.0.0.1"),
)


def test_an_origin_is_kept_as_browsers_write_it() -> None:
    given = ("https://b.example", "https://a.example:8443", "http://localhost:3000", "https://b.example")
    assert checked_origins(given) == ("http://localhost:3000", "https://a.example:8443", "https://b.example")


def test_what_no_browser_sends_as_an_origin_is_refused() -> None:
    wrong = (
        *("", "*", "null", "https://a.example/", "https://A.example", "http://a.example", "a.example"),
        *(
            "https://a.example:443",
            "https://u@a.example",
            "https://a.example b",
            "https://a.example\n",
            "https://ä.example",
        ),
    )
    for text in wrong:
        with pytest.raises(Invalid):
            checked_origins([text])
    with pytest.raises(Invalid, match="up to 20"):
        checked_origins([f"https://{n}.example" for n in range(21)])


def test_only_public_addresses_and_allowed_networks_are_outside() -> None:
    assert not any(is_forbidden_address(address, ()) for address in PUBLIC)
    assert all(is_forbidden_address(address, ()) for address in WITHIN)
    loopback = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    assert [each for each in WITHIN if not is_forbidden_address(each, loopback)] == ["127.0.0.1", "::1"]


async def test_a_name_is_followed_to_its_addresses() -> None:
    async def inner(host: str) -> list[str]:
        return {"inner.example": ["93.184.215.14", "10.0.0.1"], "outer.example": ["93.184.215.14"]}.get(host, [])

    webhooks = Webhooks(networks=(), resolve=inner)
    with pytest.raises(Invalid, match="private or link-local"):
        await webhooks.checked("https://inner.example/x")
    assert await webhooks.checked("https://outer.example/x") == "https://outer.example/x"
    assert await webhooks.checked("https://nowhere.example/x") == "https://nowhere.example/x"
    assert set(await resolve("localhost")) & {"127.0.0.1", "::1"}


def test_json_in_which_a_name_occurs_twice_is_refused_however_deep() -> None:
    assert load_unique(b'{"a": {"b": 1}, "b": [1]}') == {"a": {"b": 1}, "b": [1]}
    for text in ('{"a": 1, "a": 1}', '[{"a": {"b": 1, "b": 2}}]', '{"a": 1, "\\u0061": 2}'):
        with pytest.raises(Repeated):
            load_unique(text)
    for text in ("NaN", "[Infinity]", "{", b"\xff", "[" * 100_000):
        with pytest.raises(NotJson):
            load_unique(text)

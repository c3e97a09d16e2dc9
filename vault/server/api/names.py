"""Names beside the ids of tokens: who asked, decided, released or issued something, as people know them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aiohttp import web

from vault.ids import TokenId
from vault.server.context import VAULT, reply


async def answer(
    request: web.Request, document: Mapping[str, Any], *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Answer with a document, and in it the name beside each token that acted."""
    acted = {TokenId(each[name]) for each, name in _acted(document) if each[name]}
    names = await request.app[VAULT].catalog.token_names(sorted(acted)) if acted else {}
    return reply(with_names(document, names), status=status, headers=headers)


def with_names(document: Mapping[str, Any], names: Mapping[TokenId, str]) -> Mapping[str, Any]:
    """Write these names into an answer, and return it; null for a token that nobody knows."""
    for each, name in list(_acted(document)):
        each[f"{name}_name"] = names.get(each[name])
    return document


def _acted(value: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield each member that names the token that did something, with the object that it is in."""
    if isinstance(value, dict):
        yield from ((value, name) for name in value if name.endswith("_by"))
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _acted(each)

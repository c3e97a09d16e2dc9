"""Names beside the ids of tokens: who asked, decided, released or issued something, as people know them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aiohttp import web

from vault.ids import TokenId
from vault.server.context import VAULT
from vault.server.shapes import ACTED
from vault.services.vault import Vault


async def named(vault: Vault, document: dict[str, Any]) -> dict[str, Any]:
    """Return an answer with `…_name` beside each member that names who acted."""
    acted = {TokenId(each[name]) for each in _objects(document) for name in ACTED & each.keys() if each[name]}
    return with_names(document, await vault.catalog.token_names(sorted(acted)) if acted else {})


def with_names(document: dict[str, Any], names: Mapping[TokenId, str]) -> dict[str, Any]:
    """Return the answer with these names; null for a token that nobody knows."""
    for each in _objects(document):
        for name in ACTED & each.keys():
            each[f"{name}_name"] = names.get(each[name])
    return document


async def answer(
    request: web.Request, document: dict[str, Any], *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Answer with what `named` makes of a document."""
    return web.json_response(await named(request.app[VAULT], document), status=status, headers=headers)


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for each in list(value.values()):
            yield from _objects(each)
    elif isinstance(value, list):
        for each in value:
            yield from _objects(each)

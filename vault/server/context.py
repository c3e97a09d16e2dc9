"""Shared by all handlers: the open vault, the caller, ids and bodies of requests, and token names in answers."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar, cast
from urllib.parse import unquote

from aiohttp import HttpVersion11, web
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from vault.access.permissions import Act, permits
from vault.access.two_people import Decision
from vault.config import Config
from vault.errors import Invalid, NotFound, Unauthenticated, UnsupportedMedia, UploadStalled, VaultError
from vault.ids import RecordingId, TenantId, TokenId, call_key_of, id_bytes, parse_tenant
from vault.model import Principal, Role
from vault.protocol.facts.metadata import NotJson, Repeated, load_unique
from vault.server.connections.http_protocol import identify
from vault.server.connections.tls import Worker
from vault.server.schemas import Refusal
from vault.services.ingest.slots import OPERATORS
from vault.services.people.access import Began, Owned, claimed_id
from vault.services.people.two_people import why_not
from vault.services.vault import Vault
from vault.wording import first_misfit

# -- callers and requests -----------------------------------------------------------------------------------------

INGEST: Final = "/v1/ingest/"
"""The beginning of the addresses to which recorders send, except S3."""
_DURING_A_CALL: Final = ("/pause", "/resume", "/flag")
"""The ends of addresses of acts on a live call, which cannot be repeated later."""

VAULT = web.AppKey("vault", Vault)
CONFIG = web.AppKey("config", Config)
WORKER = web.AppKey("worker", Worker)
_BODY = web.RequestKey("body", bytes)
_PRINCIPAL = web.RequestKey("principal", Principal)
_AT_WORK = web.RequestKey("at_work", str)
HOLDER = web.RequestKey("holder", TokenId)
"""The token of the request, once its credential was accepted."""
ACTOR = web.RequestKey("actor", Principal)
"""The principal of the request, once its credential was accepted."""
CLAIMED = web.RequestKey("claimed", str)
"""The token id that the request's credential names, whether or not it is valid."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Body = TypeVar("Body", bound=BaseModel)
Shown = TypeVar("Shown")

_PREFIXES: Final[Mapping[str, str]] = {
    "recording": "rec",
    "hold": "hold",
    "erasure": "era",
    "certificate": "cert",
    "token": "tok",
    "override": "ovr",
    "policy": "pol",
    "upload": "rec",
}
"""How the ids of things begin that paths name."""
_FEWEST = 8
_CANDIDATES = 5
_MAX_BODY_BYTES = 1 << 20
_CODINGS = ("Content-Encoding", "Transfer-Encoding")
_PLAIN = frozenset({"", "identity", "aws-chunked", "chunked"})


_BEARER: Final = "send Authorization: Bearer TOKEN"


def presented(request: web.Request) -> tuple[str, bool]:
    """Return the token text of the request (bearer, or the password of Basic), and whether it came by Basic."""
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if not value.isascii():
        raise Unauthenticated("the credentials are not readable")
    match scheme.lower():
        case "bearer":
            return value.strip(), False
        case "basic":
            try:
                return base64.b64decode(value, validate=True).decode().partition(":")[2], True
            except (binascii.Error, UnicodeDecodeError) as error:
                raise Unauthenticated("the Basic credentials are not readable") from error
        case _:
            raise Unauthenticated("this needs a token", hint=_BEARER)


async def principal(request: web.Request, *, began: Began | None = None) -> Principal:
    """Return the principal of the request, checked once. An expired token is accepted if it `began` the recording."""
    known = request.get(_PRINCIPAL)
    if known is None:
        text, basic = presented(request)
        claims(request, text)
        known = await request.app[VAULT].access.authenticate(text, began=began)
        if basic and known.role is not Role.RECORDER:
            # A browser remembers Basic credentials and adds them to requests that any page makes it send.
            raise Unauthenticated("only a recorder's token may be the password of Basic", hint=_BEARER)
        request[HOLDER] = known.token_id
        came_from(request, known)
        _begin_work(request, known)
        request[_PRINCIPAL] = known
    return known


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A request whose sender may do `act`; with a tenant in its path, in that tenant."""

    http: web.Request
    vault: Vault
    actor: Principal
    act: Act

    @property
    def tenant(self) -> TenantId:
        """The tenant in the path."""
        return path_tenant(self.http)

    def id_of(self, noun: str) -> str:
        """Return the id of the `noun` that the path names; NotFound if it cannot be one."""
        return checked_id(self.http.match_info[noun], _PREFIXES[noun], noun)

    async def own(self, noun: str, look_up: Callable[..., Awaitable[Owned]]) -> Owned:
        """Return the `noun` that the path names; NotFound, logged, if it is not there or not the sender's."""
        prefix = _PREFIXES[noun]
        whole = await whole_id(self.http, self.actor, _text_of(self.http, noun), prefix)
        return await self.vault.access.own(self.actor, self.act, look_up, checked_id(whole, prefix, noun))

    async def within(self, wanted: str | None) -> TenantId | None:
        """Return the tenant that a query or body names, else the sender's own, once the sender may do `act` there.

        None is the whole vault: an operator named no tenant. NotFound if an operator names one that is not there.
        """
        tenant = checked_tenant(wanted) if wanted else self.actor.tenant
        await self.vault.access.authorise(self.actor, self.act, tenant=tenant)
        if tenant is not None and self.actor.tenant is None:
            await self.vault.tenants.require(tenant)
        return tenant

    async def to_approve(
        self, shown: Shown, decision: Decision, *, asked_by: str | None, tenant: TenantId | None
    ) -> Shown:
        """Return `shown`, of a request by `asked_by`; with `may_not_approve` if the sender may not approve it."""
        refused = await why_not(self.vault.catalog, decision, asked_by=asked_by, tenant=tenant, actor=self.actor)
        if refused is None:
            return shown
        said = Refusal(detail=refused.message, hint=refused.hint)
        return cast("Shown", {**cast("Mapping[str, Any]", shown), "may_not_approve": said})

    async def one_tenant(self, wanted: str | None, *, whose: str) -> TenantId:
        """Return the same; Invalid for the whole vault."""
        tenant = await self.within(wanted)
        if tenant is None:
            raise Invalid(f"tenant: name the tenant whose {whose}")
        return tenant


async def admitted(request: web.Request, *acts: Act, began: Began | None = None) -> Admitted:
    """Return the request once its sender may do the first of `acts` that its role may do; raises for anybody else.

    To send a recording, an expired token is let in that goes on with what it began: the open recording that the path
    names, or that `began` knows of.
    """
    access = request.app[VAULT].access
    records = Act.INGEST in acts
    actor = await (recorder(request, began=began) if records else principal(request))
    act = next((each for each in acts if permits(actor.role, each)), acts[-1])
    if "tenant" in request.match_info:
        tenant = path_tenant(request)
        await access.authorise(actor, act, tenant=tenant, target=tenant)
    else:
        named = (
            possible_id(_text_of(request, noun), _PREFIXES[noun]) for noun in request.match_info if noun in _PREFIXES
        )
        await access.authorise(actor, act, target=next(named, None))
    if records:
        require_uncoded(request)
    return Admitted(http=request, vault=request.app[VAULT], actor=actor, act=act)


def _text_of(request: web.Request, noun: str) -> str:
    return request.match_info[noun].removesuffix(".jws")


def claims(request: web.Request, token: str) -> None:
    """Remember the id in a token's text, or a token id, for the log of a refusal."""
    if (claimed := possible_id(token, "tok") or claimed_id(token)) is not None:
        request[CLAIMED] = claimed


def came_from(request: web.Request, actor: Principal) -> None:
    """Note the valid credential of the request; Unavailable if there is no place for its connection."""
    request[ACTOR] = actor
    identify(request, actor.tenant)


def _begin_work(request: web.Request, actor: Principal) -> None:
    """Count the request for its tenant, unless it acts on a live call: the limit of open recordings bounds those."""
    if not request.path.startswith(INGEST) and not request.path.endswith(_DURING_A_CALL):
        holder = actor.tenant or OPERATORS
        request.app[VAULT].requests.take(holder)
        request[_AT_WORK] = holder


def end_work(request: web.Request) -> None:
    """Stop counting the request, which is answered."""
    if (holder := request.get(_AT_WORK)) is not None:
        request.app[VAULT].requests.give(holder)


def path_tenant(request: web.Request) -> TenantId:
    """Return the tenant in the path."""
    return checked_tenant(request.match_info["tenant"])


def path_call_key(request: web.Request) -> str:
    """Return the call key in the path; bytes that are not UTF-8 are escaped like other forbidden characters."""
    resource = request.match_info.route.resource
    assert resource is not None
    place = resource.canonical.split("/").index("{call_key}")
    return call_key_of(unquote(request.rel_url.raw_path.split("/")[place], errors="surrogateescape"))


def checked_tenant(text: str) -> TenantId:
    """Return `text` as a tenant id; Invalid, whose message omits `text`: people paste tokens and numbers anywhere."""
    try:
        return parse_tenant(text)
    except Invalid as error:
        raise Invalid("not a valid tenant id", hint=error.hint) from error


def require_uncoded(request: web.Request) -> None:
    """Raise UnsupportedMedia for a compressed body: bytes are counted, compared and kept as they are sent."""
    codings = (value for name in _CODINGS for value in request.headers.getall(name, ()))
    if not {each.strip() for each in ",".join(codings).lower().split(",")} <= _PLAIN:
        raise UnsupportedMedia(
            "a body with a content coding cannot be kept as it is sent",
            hint="send it uncompressed, without Content-Encoding",
            s3="NotImplemented",
        )


async def recorder(request: web.Request, *, began: Began | None = None) -> Principal:
    """Return the recorder of the request; with an expired token only for a recording that it `began`."""
    return await principal(request, began=began or partial(_began_named, request))


async def _began_named(request: web.Request, token: TokenId) -> bool:
    """Tell whether the token began the open recording that the path names, by its id or its call key."""
    begun, named = request.app[VAULT].begun, request.match_info
    try:
        if "upload" in named:
            upload = possible_id(named["upload"], "rec")
            return upload is not None and await begun.upload(token, RecordingId(upload))
        if "call_key" in named:
            return await begun.call(token, parse_tenant(named["tenant"]), path_call_key(request))
    except Invalid:  # a recorder with a valid token gets this error later
        return False
    return False


async def asked_later(_: web.Request) -> None:
    """Leave `Expect` to the handler, which calls `go_on`. A client that is refused before that sends no audio."""


def go_on(request: web.Request) -> None:
    """Send `100 Continue` if the request expects it (RFC 9110 section 10.1.1), which HTTP/1.0 cannot."""
    expected = request.headers.get("Expect")
    if expected is None or request.version < HttpVersion11:
        return
    if expected.lower() != "100-continue":
        raise web.HTTPExpectationFailed
    if request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def whole_id(request: web.Request, actor: Principal, text: str, prefix: str) -> str:
    """Return the only id of the caller's tenant that begins with `text`, if the request only reads.

    Invalid, with the candidates, if several ids begin with it. In all other cases, return `text` itself.
    """
    if request.method not in ("GET", "HEAD") or not re.fullmatch(rf"{prefix}_[0-9a-f]{{{_FEWEST},31}}", text):
        return text
    found = await request.app[VAULT].catalog.ids_beginning(text, tenant=actor.tenant, limit=_CANDIDATES + 1)
    if len(found) > 1:
        more = ", and more" if len(found) > _CANDIDATES else ""
        raise Invalid(
            f"several ids begin with this: {', '.join(found[:_CANDIDATES])}{more}", hint="write more of the id"
        )
    return found[0] if found else text


def possible_id(text: str, prefix: str) -> str | None:
    """Return `text` if it can be an id with this prefix, else None: other text belongs in no log."""
    try:
        id_bytes(text)
    except Invalid:
        return None
    return text if text.startswith(f"{prefix}_") else None


def checked_id(text: str, prefix: str, noun: str) -> str:
    """Return `text` if it can be the id of a `noun`; NotFound, whose message omits it."""
    found = possible_id(text, prefix)
    if found is None:
        found_by = "; a call is found by its key: callvault recordings list --call-key KEY" if prefix == "rec" else ""
        raise NotFound(
            f"there is no such {noun}",
            hint=f"give the whole id, {prefix}_ and 32 hex digits; a read takes its first eight digits too{found_by}",
        )
    return found


def query_id(text: str | None, prefix: str, parameter: str) -> str | None:
    """Return the id in a query parameter, None without it; Invalid, whose message omits the value."""
    if text is None:
        return None
    found = possible_id(text, prefix)
    if found is None:
        raise Invalid(f"{parameter}: not a valid id", hint=f"ids look like {prefix}_ and 32 hex digits")
    return found


async def small_body(request: web.Request, *, limit: int, too_large: VaultError) -> bytes:
    """Return a body of at most `limit` bytes; `too_large` for more.

    UploadStalled if the body is not complete within `server.idle_timeout`; only audio may take as long as a call.
    Unauthenticated if the request's token is revoked meanwhile; the request is then not carried out.
    """
    content = bytearray()
    underway, holder = request.app[VAULT].access.underway, request.get(HOLDER)
    leave = None if holder is None else underway.enter(holder, lambda: request.content.set_exception(TimeoutError()))
    try:
        async with asyncio.timeout(request.app[CONFIG].server.idle_timeout.total_seconds()):
            while piece := await request.content.readany():
                content += piece
                if len(content) > limit:
                    raise too_large
        return bytes(content)
    except TimeoutError as error:
        if holder is not None:
            underway.require(holder)
        raise UploadStalled("the request's body did not arrive; nothing was done", hint="send it again") from error
    finally:
        if leave is not None:
            leave()


async def read_body(request: web.Request, kind: type[Body]) -> Body:
    """Return the validated JSON body; Invalid names the field."""
    require_uncoded(request)
    return parse_model(await whole_body(request), kind)


async def whole_body(request: web.Request) -> bytes:
    """Return a body of at most 1 MiB, which is read once for each request."""
    known = request.get(_BODY)
    if known is None:
        too_large = Invalid("the request body is larger than 1 MiB")
        known = request[_BODY] = await small_body(request, limit=_MAX_BODY_BYTES, too_large=too_large)
    return known


def parse_model(raw: bytes, kind: type[Body]) -> Body:
    """Return the model of JSON bytes; Invalid names the field and what is wrong with it."""
    try:
        load_unique(raw)
    except Repeated as error:
        raise Invalid("a name occurs twice in one object of the body", hint="send each name once") from error
    except NotJson as error:
        raise Invalid("the body is not JSON in UTF-8, or nests too deeply") from error
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        raise _invalid(error, kind) from error


def read_query(request: web.Request, kind: type[Body]) -> Body:
    """Return the validated query string; Invalid names the parameter."""
    try:
        return kind.model_validate(_single(request.query))
    except ValidationError as error:
        raise _invalid(error, kind) from error


def reply(
    document: Mapping[str, object] | bytes, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Return an answer with a JSON document, which may be written already."""
    body = document if isinstance(document, bytes) else to_json(document)
    return web.Response(body=body, content_type="application/json", charset="utf-8", status=status, headers=headers)


def _single(parameters: Mapping[str, str]) -> Mapping[str, str]:
    single = dict(parameters)
    if len(single) != len(parameters):
        raise Invalid("a query parameter occurs twice", hint="send each parameter once")
    return single


def _invalid(error: ValidationError, kind: type[BaseModel]) -> Invalid:
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "extra_forbidden":
        # The name is not repeated: it is client input, and may be a number or a token in the wrong place.
        names = (field.alias or name for name, field in kind.model_fields.items())
        return Invalid("the query or the body has a name that is not known here", hint=f"known: {', '.join(names)}")
    where, what = first_misfit(error)
    return Invalid(f"{where}: {what}" if where else f"the body: {what}")


# -- names --------------------------------------------------------------------------------------------------------


async def named(vault: Vault, document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Write the name beside each token that acted into an answer, and return it."""
    acted = {TokenId(each[name]) for each, name in _acted(document) if each[name]}
    return with_names(document, await vault.catalog.token_names(sorted(acted)) if acted else {})


def with_names(document: Mapping[str, Any], names: Mapping[TokenId, str]) -> Mapping[str, Any]:
    """Write these names into a document, and return it; null for an unknown token."""
    for each, name in list(_acted(document)):
        each[f"{name}_name"] = names.get(each[name])
    return document


def _acted(value: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield each member whose name ends in `_by`, with the object that it is in."""
    if isinstance(value, dict):
        yield from ((value, name) for name in value if name.endswith("_by"))
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _acted(each)

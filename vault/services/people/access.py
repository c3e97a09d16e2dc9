"""Authentication and authorisation by token, role and tenant; the log of denials; the work that a revocation ends."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol, TypeVar

from vault.access.permissions import Act, Why, has_expired, permits, permits_in, roles_with
from vault.access.tally import Tally
from vault.crypto.derive import open_with_any
from vault.crypto.values import open_secret, seal_secret
from vault.errors import Forbidden, Invalid, NotFound, Unauthenticated, VaultError
from vault.ids import RecordingId, TenantId, TokenId, id_bytes, new_id
from vault.instants import rfc3339
from vault.model import AuditEvent, DataKey, Principal, Role, Token
from vault.ports.audit import AuditTrail
from vault.ports.tenants import TenantLookup, TokenLookup, TokenRows
from vault.retention.guards import effective_now
from vault.retention.periods import format_duration
from vault.services.audit import event
from vault.services.surroundings import Surroundings

# -- denials ------------------------------------------------------------------------------------------------------
# The first denial of a kind is logged at once, repetitions as one counted entry.
#
# A kind is a token, an act and a reason, so trying id after id is repetition. The first entry is durable before the
# refusal is answered. Repetitions are counted in memory. Their entry is written when the window ends or the server
# stops in order. A crash loses the counts of open windows, never a first entry.

WINDOW_SECONDS: Final = 60.0
"""How many seconds repetitions of a denial are counted before they are written."""
MOST_KINDS: Final = 256
"""How many kinds of one tenant are counted separately at a time; more are counted together."""
_ROUND_SECONDS: Final = 5.0

_Kind = tuple[TokenId, Act, Why]

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True, eq=False)
class _Window:
    """The count of one kind of denial; with `actor` None, of several kinds of one tenant."""

    tenant: TenantId | None
    actor: Principal | None
    what: Mapping[str, str]
    until: float
    tally: Tally

    def event(self) -> AuditEvent:
        detail: dict[str, Any] = {**self.what, **self.tally.document()}
        return event("access.denied", self.actor, outcome="refused", tenant=self.tenant, detail=detail)


class Denials:
    """Writes all `access.denied` entries.

    Memory and entries are bounded for each tenant, so that many denials of one tenant delay no other tenant's entry.
    """

    def __init__(self, *, catalog: AuditTrail, surroundings: Surroundings) -> None:
        self._catalog = catalog
        self._clock = surroundings.clock
        self._count = surroundings.metrics.denials
        self._open: dict[TenantId | None, dict[_Kind | None, _Window]] = {}

    async def write(self, actor: Principal, act: Act, target: str | None, why: Why) -> None:
        """Return once the denial is durable, or counted as a repetition.

        A denial that cannot be written is counted too, and Unavailable is raised.
        """
        self._count.labels(why.value).inc()
        window, first = self._window(actor, act, why)
        if not first:
            self._add(window, actor, act, target)
            return
        entry = event("access.denied", actor, outcome="refused", target=target, detail=_what(act, why))
        try:
            await self._catalog.append_audit([entry])
        except BaseException:
            window, _ = self._window(actor, act, why)  # look again: the opened window may have ended meanwhile
            self._add(window, actor, act, target)
            raise

    def _window(self, actor: Principal, act: Act, why: Why) -> tuple[_Window, bool]:
        """Return the window that counts this denial, and whether it was just opened."""
        windows = self._open.setdefault(actor.tenant, {})
        kind: _Kind | None = (actor.token_id, act, why)
        if kind not in windows and len(windows) >= MOST_KINDS:
            kind = None
        if kind in windows:
            return windows[kind], False
        windows[kind] = _Window(
            tenant=actor.tenant,
            actor=None if kind is None else actor,
            what={} if kind is None else _what(act, why),
            until=self._clock.monotonic() + WINDOW_SECONDS,
            tally=Tally("targets") if kind is not None else Tally("targets", "tokens", "acts"),
        )
        return windows[kind], True

    def _add(self, window: _Window, actor: Principal, act: Act, target: str | None) -> None:
        window.tally.add(self._clock.now(), targets=target, tokens=actor.token_id, acts=act.value)

    async def run(self) -> None:
        """Write the counts of windows that have ended, until cancelled; then those of all windows."""
        try:
            while True:
                await asyncio.sleep(_ROUND_SECONDS)
                try:
                    await self.settle(until=self._clock.monotonic())
                except VaultError as error:
                    logger.warning("counted denials wait to be written", extra={"fields": {"error": error.code}})
        finally:
            with suppress(VaultError):
                await self.settle()

    async def settle(self, *, until: float = math.inf) -> None:
        """End the windows whose time is up by `until`, or all; write one entry for each with a count above zero.

        Counts that cannot be written are kept, so an entry whose commit had no answer may be written twice.
        """
        ended = [
            (kind, window)
            for windows in self._open.values()
            for kind, window in windows.items()
            if window.until <= until
        ]
        for kind, window in ended:
            del self._open[window.tenant][kind]
        counted = [(kind, window) for kind, window in ended if window.tally.count]
        try:
            await self._catalog.append_audit([window.event() for _, window in counted])
        except BaseException:
            for kind, window in counted:
                anew = self._open[window.tenant].setdefault(kind, window)
                if anew is not window:
                    anew.tally.merge(window.tally)
            raise


def _what(act: Act, why: Why) -> Mapping[str, str]:
    return {"act": act.value, "why": why.value}


# -- work under way -----------------------------------------------------------------------------------------------

_CHECK_SECONDS = 2.0


def ended() -> Unauthenticated:
    """Return the error of work whose token was revoked meanwhile."""
    return Unauthenticated(
        "the token was revoked while this was under way; what was acknowledged is durable",
        hint="continue with a token that is in force",
    )


class UnderWay:
    """The requests, calls and playbacks of this process, by token.

    A token that this process knows as revoked is remembered, so that a request accepted before the revocation cannot
    begin its work after it.
    """

    def __init__(self, *, catalog: TokenLookup) -> None:
        self._catalog = catalog
        self._ends: dict[TokenId, set[Callable[[], None]]] = {}
        self._revoked: set[TokenId] = set()

    def knows(self, token: TokenId) -> bool:
        """Tell whether this process knows the token as revoked."""
        return token in self._revoked

    def require(self, token: TokenId) -> None:
        """Raise Unauthenticated if this process knows the token as revoked."""
        if self.knows(token):
            raise ended()

    def enter(self, token: TokenId, end: Callable[[], None]) -> Callable[[], None]:
        """Register work of a token, to `end` once if the token is revoked; return a function that withdraws this.

        `end` must return at once and raise no error; it makes the work stop soon. The returned function may be called
        twice. Unauthenticated if the token is already revoked.
        """
        self.require(token)

        def once() -> None:
            end()

        self._ends.setdefault(token, set()).add(once)

        def leave() -> None:
            ends = self._ends.get(token)
            if ends is not None:
                ends.discard(once)
                if not ends:
                    del self._ends[token]

        return leave

    def end(self, token: TokenId) -> None:
        """End the token's work in this process, and refuse further work of it."""
        self._revoked.add(token)
        for end in self._ends.pop(token, ()):
            end()

    async def run(self) -> None:
        """End the work of tokens that were revoked elsewhere, until cancelled."""
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            try:
                await self.look()
            except VaultError as error:
                # The next round asks again. While the catalog does not answer, no work is ended.
                logger.warning("revoked tokens could not be looked for", extra={"fields": {"error": error.code}})

    async def look(self) -> None:
        """Ask the catalog for every token with work under way, and end that of revoked ones."""
        for token in tuple(self._ends):
            found = await self._catalog.token(token)
            if found is None or found.revoked_at is not None:
                self.end(token)


# -- access -------------------------------------------------------------------------------------------------------

_CACHE_SECONDS = 2.5
"""How long a process uses a token as it last read it.

Work under way is checked every two seconds. So a token that was revoked in another process has ended everywhere within
five seconds.
"""
_SECRET_BYTES = 32
_NONCE_BYTES = 12
_CACHE_LIMIT = 10_000
MAX_IMPORT: Final = timedelta(days=90)
"""How long after its issue a recorder's token may import with true dates."""
MAX_LIFE: Final = timedelta(days=3660)
"""How far ahead a token's expiry may be; a token without an expiry may last longer."""
_TOKEN_PREFIX = "cv_"  # noqa: S105  # the public prefix by which scanners recognise a leaked token

Began = Callable[[TokenId], Awaitable[bool]]
"""Tells whether a token began the recording that a request continues, and the recording is still open."""


def unknown_token() -> Unauthenticated:
    """Return the refusal of a token that is not in force; it does not say why."""
    return Unauthenticated(
        "the token is unknown, wrong, expired or revoked",
        hint="send Authorization: Bearer TOKEN",
    )


def claimed_id(text: str) -> str | None:
    """Return the id in a token's text, None if it has none; a token of that id need not exist."""
    claimed = f"tok_{text.removeprefix(_TOKEN_PREFIX).partition('_')[0]}"
    try:
        id_bytes(claimed)
    except Invalid:
        return None
    return claimed if text.startswith(_TOKEN_PREFIX) else None


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _check_import(until: datetime, *, role: Role, actor: Principal | None, now: datetime) -> None:
    if actor is not None and actor.role is not Role.OPERATOR:
        raise Forbidden("only an operator issues a token that imports")
    if role is not Role.RECORDER:
        raise Invalid("only a recorder's token imports", hint="leave imports_until out")
    if not now < until <= now + MAX_IMPORT:
        raise Invalid(
            f"imports_until is not within the next {format_duration(MAX_IMPORT)}",
            hint="choose the day on which the migration is over",
        )


def _check_expiry(expires_at: datetime, *, now: datetime) -> None:
    if not now < expires_at <= now + MAX_LIFE:
        raise Invalid(
            f"expires_at is not within the next {format_duration(MAX_LIFE)}",
            hint="choose a future instant, or leave it out for a token that does not expire",
        )


def _who_may(act: Act) -> str | None:
    """Return the hint that names the roles which may do this; None if no role may."""
    roles = ", ".join(role.value for role in roles_with(act))
    held = "a hold protects this recording; " if act is Act.PLAY_HELD else ""
    return f"{held}a token of one of these roles may: {roles}" if roles else None


class _Owned(Protocol):
    @property
    def tenant(self) -> TenantId | None: ...


Owned = TypeVar("Owned", bound=_Owned)


class AccessRows(TokenRows, TenantLookup, AuditTrail, Protocol):
    """The catalog methods that access needs."""


class Access:
    """Authenticates and authorises. `sealing_keys` are the keys of recorders' secrets: the first seals, any may open.

    Tokens expire by the vault's time, which is never before `last_sweep_at`. So a clock that steps back revives no
    token.
    """

    def __init__(
        self,
        *,
        catalog: AccessRows,
        surroundings: Surroundings,
        sealing_keys: Callable[[], Sequence[DataKey]],
        last_sweep_at: Callable[[], datetime | None] = lambda: None,
    ) -> None:
        self._catalog = catalog
        self._clock = surroundings.clock
        self._entropy = surroundings.entropy
        self._sealing_keys = sealing_keys
        self._last_sweep_at = last_sweep_at
        self._cache: dict[TokenId, tuple[float, Token]] = {}
        self.underway = UnderWay(catalog=catalog)
        self.denials = Denials(catalog=catalog, surroundings=surroundings)

    async def issue(
        self,
        *,
        name: str,
        role: Role,
        tenant: TenantId | None,
        actor: Principal | None,
        imports_until: datetime | None = None,
        expires_at: datetime | None = None,
    ) -> tuple[Token, str]:
        """Create a token; return it with its secret text, which cannot be read again.

        `imports_until` is for migrations, see `Token`: only for a recorder's token, issued by an operator, for at most
        MAX_IMPORT. `expires_at` is at most MAX_LIFE ahead; without it the token is in force until it is revoked.
        """
        if tenant is None and role is not Role.OPERATOR:
            raise Invalid(f"a {role.value} token belongs to one tenant", hint="pass --tenant")
        if tenant is not None and role is Role.OPERATOR:
            # An operator's acts reach every tenant, so a tenant on the token would suggest a bound that does not exist.
            raise Invalid("an operator's token belongs to no tenant", hint="leave the tenant out")
        if tenant is not None:
            await self._catalog.tenant(tenant)
        if not name.strip():
            raise Invalid("a token needs a name: the person or recorder that uses it")
        now = self._now()
        if expires_at is not None:
            _check_expiry(expires_at, now=now)
        if imports_until is not None:
            _check_import(imports_until, role=role, actor=actor, now=now)
        identifier = TokenId(new_id("tok", at=now, entropy=self._entropy))
        secret = base64.urlsafe_b64encode(self._entropy(_SECRET_BYTES)).rstrip(b"=").decode()
        text = f"{_TOKEN_PREFIX}{identifier.removeprefix('tok_')}_{secret}"
        token = Token(
            id=identifier,
            name=name,
            role=role,
            tenant=tenant,
            secret_sha256=_digest(secret),
            created_at=now,
            sealed_secret=self._sealed(identifier, secret) if role is Role.RECORDER else None,
            imports_until=imports_until,
            issued_by=None if actor is None else actor.token_id,
            expires_at=expires_at,
        )
        detail = {"action": "issued", "role": role.value}
        for name_of, until in (("imports_until", imports_until), ("expires_at", expires_at)):
            if until is not None:
                detail[name_of] = rfc3339(until)
        await self._catalog.add_token(
            token, audit=[event("admin.token", actor, tenant=tenant, target=identifier, detail=detail)]
        )
        return token, text

    def _sealed(self, token: TokenId, secret: str) -> bytes:
        return seal_secret(self._sealing_keys()[0], token, secret, nonce=self._entropy(_NONCE_BYTES))

    async def revoke(self, token: TokenId, *, actor: Principal) -> None:
        """Revoke a token and end its work: here at once, in other processes within five seconds."""
        found = await self._catalog.token(token)
        if found is None or (actor.tenant is not None and found.tenant != actor.tenant):
            raise await self.none_of_its_own(actor, Act.TOKEN_ADMIN, token)
        await self._catalog.revoke_token(
            token,
            at=self._clock.now(),
            audit=[event("admin.token", actor, tenant=found.tenant, target=token, detail={"action": "revoked"})],
        )
        self._cache.pop(token, None)
        self.underway.end(token)

    async def authenticate(self, text: str, *, began: Began | None = None) -> Principal:
        """Return the principal of this token text; Unauthenticated, without the reason.

        An expired token is accepted if it `began` the recording that the request continues.
        """
        refused = unknown_token()
        head, _, secret = text.removeprefix(_TOKEN_PREFIX).partition("_")
        if not text.startswith(_TOKEN_PREFIX) or not head or not secret or not (text.isascii() and text.isprintable()):
            raise refused  # JSON allows text that a catalog cannot search for
        token = await self._in_force(TokenId(f"tok_{head}"), began)
        if token is None:
            raise refused
        if not hmac.compare_digest(token.secret_sha256, _digest(secret)):
            raise refused
        return self._principal(token)

    async def shared_secret(self, token: TokenId, *, began: Began | None = None) -> bytes | None:
        """Return the secret of a recorder's token, for protocols that sign with it; None without one."""
        found = await self._in_force(token, began)
        sealed = None if found is None else found.sealed_secret
        if found is None or sealed is None:
            return None
        return open_with_any(self._sealing_keys(), lambda key: open_secret(key, found.id, sealed)).encode()

    async def acting(self, token: TokenId, *, began: Began | None = None) -> Principal:
        """Return the principal of a token that was proved without its text; Unauthenticated if it is not in force."""
        found = await self._in_force(token, began)
        if found is None:
            raise unknown_token()
        return self._principal(found)

    async def signing_secret(self, access_key: str, *, began: Began | None = None) -> tuple[Principal, str]:
        """Return the principal of an S3 access key, and its secret key; Unauthenticated.

        The access key is the id of a recorder's token; the secret key is the secret part of its text. Only a recorder's
        token issued before secrets were sealed gets an error of its own; all others get the same.
        """
        secret = await self.shared_secret(TokenId(access_key), began=began)
        token = await self._in_force(TokenId(access_key), began)
        if token is None or token.role is not Role.RECORDER:
            raise Unauthenticated(
                "the access key is unknown, expired, revoked or not a recorder's",
                hint="the access key is the recorder token's id, the secret key its secret part",
                s3="InvalidAccessKeyId",
            )
        if secret is None:
            raise Unauthenticated(
                "this token was issued before tokens could sign requests",
                hint="issue a new recorder token",
                s3="InvalidAccessKeyId",
            )
        return self._principal(token), secret.decode()

    def _principal(self, token: Token) -> Principal:
        return Principal(
            token_id=token.id,
            name=token.name,
            role=token.role,
            tenant=token.tenant,
            imports_until=token.imports_until,
            expires_at=token.expires_at,
            expired=has_expired(token, now=self._now()),
        )

    def _now(self) -> datetime:
        return effective_now(self._clock.now(), self._last_sweep_at())

    async def _in_force(self, identifier: TokenId, began: Began | None) -> Token | None:
        """Return the token if it is in force, or expired but `began` the continued recording; else None.

        This also asks `UnderWay`: this process may have revoked the token after the catalog answered.
        """
        token = await self._token(identifier)
        if token is None or token.revoked_at is not None or self.underway.knows(identifier):
            return None
        finishes = not has_expired(token, now=self._now()) or (began is not None and await began(identifier))
        return token if finishes and not self.underway.knows(identifier) else None

    async def _token(self, identifier: TokenId) -> Token | None:
        now = self._clock.monotonic()
        cached = self._cache.get(identifier)
        if cached is not None and now - cached[0] < _CACHE_SECONDS:
            return cached[1]
        token = await self._catalog.token(identifier)
        if token is not None:
            if len(self._cache) >= _CACHE_LIMIT:
                self._cache.clear()
            self._cache[identifier] = (now, token)
        return token

    async def authorise(
        self, actor: Principal, act: Act, *, tenant: TenantId | None = None, target: str | None = None
    ) -> None:
        """Return if the role permits the act and the tenant is the actor's own; otherwise log the denial and refuse.

        For another tenant the refusal is NotFound, so that the actor does not learn what exists there. Unauthenticated
        if the actor's token was revoked after it was accepted.
        """
        self.underway.require(actor.token_id)
        if not permits(actor.role, act):
            await self.denials.write(actor, act, target, Why.ROLE)
            raise Forbidden(f"the role {actor.role.value} may not do this ({act.value})", hint=_who_may(act))
        if tenant is not None and not permits_in(actor, act, tenant):
            raise await self.none_of_its_own(actor, act, target or tenant)

    async def own(
        self,
        actor: Principal,
        act: Act,
        look_up: Callable[..., Awaitable[Owned]],
        identifier: str,
        *,
        tenant: TenantId | None = None,
    ) -> Owned:
        """Return the row that `look_up` finds, if it belongs to the actor's tenant; otherwise log, and raise NotFound.

        If the address or the body names a `tenant`, the row must be that tenant's. `look_up` gets the id and the
        `tenant`, so that another tenant's row is not read: reading it would take longer than finding no row.
        """
        try:
            found = await look_up(identifier, tenant=actor.tenant if tenant is None else tenant)
        except NotFound:
            raise await self.none_of_its_own(actor, act, identifier) from None
        if not permits_in(actor, act, found.tenant) or tenant not in (None, found.tenant):
            raise await self.none_of_its_own(actor, act, identifier)
        return found

    async def all_own(
        self,
        actor: Principal,
        act: Act,
        look_up: Callable[..., Awaitable[Mapping[RecordingId, Owned]]],
        identifiers: Sequence[RecordingId],
        *,
        tenant: TenantId,
    ) -> Sequence[Owned]:
        """Return the rows of all `identifiers` in order, each checked like `own`."""
        found = await look_up(identifiers, tenant=tenant)
        for identifier in identifiers:
            if identifier not in found or not permits_in(actor, act, found[identifier].tenant):
                raise await self.none_of_its_own(actor, act, identifier)
        return [found[identifier] for identifier in identifiers]

    async def none_of_its_own(self, actor: Principal, act: Act, target: str | None) -> NotFound:
        """Log that the actor named a missing thing or another tenant's; return the error, the same for both."""
        await self.denials.write(actor, act, target, Why.NOT_ITS_OWN)
        return NotFound(
            "there is no such thing, or not for this token", hint="check its id or name, and the tenant of the token"
        )

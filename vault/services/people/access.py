"""Who may do what: tokens, roles and tenants. A secret is stored as its SHA-256; a recorder's sealed as well."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol, TypeVar

from vault.access.permissions import Act, Why, has_expired, permits, permits_in, roles_with
from vault.crypto.derive import open_with_any
from vault.crypto.rows import open_secret, seal_secret
from vault.errors import Forbidden, Invalid, NotFound, Unauthenticated
from vault.ids import RecordingId, TenantId, TokenId, id_bytes, new_id
from vault.instants import rfc3339
from vault.model import DataKey, Principal, Recording, Role, Token
from vault.ports.audit import AuditTrail
from vault.ports.tenants import TenantLookup
from vault.ports.tokens import TokenRows
from vault.retention.guards import effective_now
from vault.retention.periods import format_duration
from vault.services.audit import event
from vault.services.people.denials import Denials
from vault.services.people.under_way import UnderWay
from vault.services.surroundings import Surroundings

_CACHE_SECONDS = 2.5
"""For how long a process takes a token as it last saw it. With the two seconds after which work is looked after
(vault.services.people.under_way), what another process revoked has ended everywhere within five."""
_SECRET_BYTES = 32
_NONCE_BYTES = 12
_CACHE_LIMIT = 10_000
MAX_IMPORT: Final = timedelta(days=90)
"""For how long from its issue a recorder's token may take true dates."""
MAX_LIFE: Final = timedelta(days=3660)
"""How far ahead a token's expiry may lie; one that is to last longer has none."""
_TOKEN_PREFIX = "cv_"  # noqa: S105  # the public prefix by which scanners recognise a leaked token

Began = Callable[[TokenId], Awaitable[bool]]
"""Tells whether a token began the recording that a request goes on with, and that is open yet."""


def unknown_token() -> Unauthenticated:
    """Return the refusal of whatever is no token in force, which says nothing about why."""
    return Unauthenticated(
        "the token is unknown, wrong, expired or revoked",
        hint="send Authorization: Bearer TOKEN",
    )


def claimed_id(text: str) -> str | None:
    """Return the id that a token's text claims, if it can be one; whether there is such a token is another matter."""
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
            hint="choose an instant to come, or leave it out for a token that does not expire",
        )


def _who_may(act: Act) -> str | None:
    """Say whose token may, where anybody's may."""
    roles = ", ".join(role.value for role in roles_with(act))
    held = "a hold protects this recording; " if act is Act.PLAY_HELD else ""
    return f"{held}a token of one of these roles may: {roles}" if roles else None


class _Owned(Protocol):
    @property
    def tenant(self) -> TenantId | None: ...


Owned = TypeVar("Owned", bound=_Owned)


class AccessRows(TokenRows, TenantLookup, AuditTrail, Protocol):
    """What access asks of the catalog."""


class Access:
    """Authenticates and authorises; `sealing_keys` returns those that recorders' secrets are sealed under.

    The first seals; any may have. Tokens expire by the vault's time, which is never before `last_sweep_at`: a clock
    that steps back revives none of those.
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
        """Create a token and return it with its secret text, which is shown once and cannot be read back.

        `imports_until` is for a migration, see `Token`: a recorder's, issued by an operator, for at most MAX_IMPORT.
        `expires_at` lies at most MAX_LIFE ahead; without it the token is in force until it is revoked.
        """
        if tenant is None and role is not Role.OPERATOR:
            raise Invalid(f"a {role.value} token belongs to one tenant", hint="pass --tenant")
        if tenant is not None and role is Role.OPERATOR:
            # What an operator does reaches every tenant, so a tenant on such a token would only look like a bound.
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
        """End a token, and what is under way for it: here at once, in other processes within five seconds."""
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
        """Return who presents this token text; Unauthenticated says nothing about why.

        An expired token is let in where `began` says so.
        """
        refused = unknown_token()
        head, _, secret = text.removeprefix(_TOKEN_PREFIX).partition("_")
        if not text.startswith(_TOKEN_PREFIX) or not head or not secret or not (text.isascii() and text.isprintable()):
            raise refused  # JSON can spell what no catalog can be asked for
        token = await self._in_force(TokenId(f"tok_{head}"), began)
        if token is None:
            raise refused
        if not hmac.compare_digest(token.secret_sha256, _digest(secret)):
            raise refused
        return self._principal(token)

    async def shared_secret(self, token: TokenId, *, began: Began | None = None) -> bytes | None:
        """Return the secret of a recorder's token, for protocols that sign with it; None if it cannot be known."""
        found = await self._in_force(token, began)
        sealed = None if found is None else found.sealed_secret
        if found is None or sealed is None:
            return None
        return open_with_any(self._sealing_keys(), lambda key: open_secret(key, found.id, sealed)).encode()

    async def acting(self, token: TokenId, *, began: Began | None = None) -> Principal:
        """Return the principal of a token whose holder is known by other means; Unauthenticated if it has ended."""
        found = await self._in_force(token, began)
        if found is None:
            raise unknown_token()
        return self._principal(found)

    async def signing_secret(self, access_key: str, *, began: Began | None = None) -> tuple[Principal, str]:
        """Return who an S3 access key stands for and the secret that signs for it; Unauthenticated.

        The access key is a recorder token's id, the secret key the secret part of its text. The answer tells a token
        that cannot sign from an unknown one only for recorders' tokens issued before secrets were sealed.
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
        """Return the token unless it is unknown, revoked, or expired and did not begin what the request goes on with.

        What the catalog said is not enough: while it was asked, this process may have revoked the token.
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
        """Return if the role permits the act and the tenant is the actor's own; else log and refuse.

        Another tenant's things answer NotFound, so that their existence is not told. Unauthenticated once the actor's
        token was revoked: it may have been let in before that.
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
        """Return what `look_up` finds if it is the actor's tenant's; else log and refuse, as for what is not there.

        With `tenant`, only what is that tenant's: the one that the address or the body names. `look_up` is told the id
        and the `tenant`, so that another one's row is not read at all: reading it would take longer than finding none.
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
        look_up: Callable[..., Awaitable[Mapping[RecordingId, Recording]]],
        identifiers: Sequence[RecordingId],
        *,
        tenant: TenantId,
    ) -> Sequence[Recording]:
        """Return in their order what `look_up` finds if all of it is the tenant's and the actor's, as `own` does."""
        found = await look_up(identifiers, tenant=tenant)
        for identifier in identifiers:
            if identifier not in found or not permits_in(actor, act, found[identifier].tenant):
                raise await self.none_of_its_own(actor, act, identifier)
        return [found[identifier] for identifier in identifiers]

    async def none_of_its_own(self, actor: Principal, act: Act, target: str | None) -> NotFound:
        """Log that the actor named what is not its own, or is not at all, and return the one answer to that."""
        await self.denials.write(actor, act, target, Why.NOT_ITS_OWN)
        return NotFound("there is no such thing, or not for this token")

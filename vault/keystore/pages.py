"""Seals the keyring's state into files, and opens it again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from vault.crypto.ggm import Cover
from vault.errors import Destroyed, IntegrityError, Tampered
from vault.format.keyring import INDEX, PAGES, Head, Index, PageRecord, PageRef, decode_head, encode_head
from vault.ids import TenantId
from vault.keystore import sealing
from vault.keystore.replicas import Survey, gather_blobs
from vault.keystore.state import Page, State, gathered, listed
from vault.ports.keys import KeyringStore, RootKeyProvider
from vault.ports.time import Entropy
from vault.threads import in_thread

_NAME_BYTES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochSecret:
    """The 32 bytes that the other keys of one epoch depend on, and their wrapped form."""

    root: str
    wrapped: bytes
    material: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A state together with its sealed bytes."""

    state: State
    secret: EpochSecret
    refs: Mapping[TenantId, PageRef]
    index: str
    index_sha256: bytes
    head: bytes = field(repr=False)

    def blobs(self) -> Mapping[str, bytes]:
        """Return the names of all blobs this revision consists of, with their hashes."""
        return {
            f"{INDEX}/{self.index}": self.index_sha256,
            **{f"{PAGES}/{ref.name}": ref.sha256 for ref in self.refs.values()},
        }


async def wrap_secret(provider: RootKeyProvider, root: str, state: State, entropy: Entropy) -> EpochSecret:
    """Draw the secret of the state's epoch and wrap it under `root`."""
    material = entropy(sealing.SECRET_BYTES)
    wrapped = await provider.wrap(root, material, sealing.wrap_aad(state.keyring, state.epoch))
    return EpochSecret(root=root, wrapped=wrapped, material=material)


def stage(
    state: State, secret: EpochSecret, *, before: Stored | None, entropy: Entropy
) -> tuple[Stored, dict[str, bytes]]:
    """Seal `state`; return its stored form, and the blobs to write before its head.

    Pages that are the same objects as in `before` keep their blobs. So a change writes only the changed tenants' pages
    and the index.
    """
    refs: dict[TenantId, PageRef] = {}
    blobs: dict[str, bytes] = {}
    for tenant in sorted(state.pages):
        page = state.pages[tenant]
        if before is not None and before.state.pages.get(tenant) is page:
            refs[tenant] = before.refs[tenant]
            continue
        key = entropy(32)
        record = PageRecord(
            tenant=tenant,
            cohorts={cohort: cover.nodes for cohort, cover in page.cohorts.items()},
            pins=frozenset(listed(page.pins)),
        )
        sealed = sealing.seal_page(key, state.keyring, record)
        refs[tenant] = PageRef(
            tenant=tenant, name=entropy(_NAME_BYTES).hex(), sha256=hashlib.sha256(sealed).digest(), key=key
        )
        blobs[f"{PAGES}/{refs[tenant].name}"] = sealed
    sealed = sealing.seal_index(secret.material, _index(state, tuple(refs.values())), entropy(sealing.SALT_BYTES))
    head = Head(
        keyring=state.keyring,
        fence=state.fence,
        epoch=state.epoch,
        revision=state.revision,
        root=secret.root,
        wrapped=secret.wrapped,
        index=entropy(_NAME_BYTES).hex(),
        index_sha256=hashlib.sha256(sealed).digest(),
    )
    blobs[f"{INDEX}/{head.index}"] = sealed
    stored = Stored(
        state=state,
        secret=secret,
        refs=refs,
        index=head.index,
        index_sha256=head.index_sha256,
        head=encode_head(head, sealing.head_mac(secret.material, head)),
    )
    return stored, blobs


async def load(
    provider: RootKeyProvider,
    stores: Sequence[KeyringStore],
    keyring: bytes,
    head: bytes,
    *,
    known: Stored | None = None,
    reread: bool = True,
) -> Stored:
    """Open the keyring that `head` names, from whichever of `stores` has the blobs.

    Pages that `known` has open under the same name, key and hash are not opened again. Without `reread` their blobs are
    not fetched either, and a secret that `known` has unwrapped is not unwrapped again. Destroyed or IntegrityError if
    the keyring can never be opened, Unavailable if it cannot be opened now.
    """
    place, mac = decode_head(head)
    if place.keyring != keyring:
        raise Tampered("a head belongs to a keyring that is not the one in its replica's marker")
    if known is not None and not reread and (known.secret.root, known.secret.wrapped) == (place.root, place.wrapped):
        secret = known.secret
    else:
        material = await provider.unwrap(place.root, place.wrapped, sealing.wrap_aad(keyring, place.epoch))
        secret = EpochSecret(root=place.root, wrapped=place.wrapped, material=material)
    sealing.check_head(secret.material, place, mac)
    name = f"{INDEX}/{place.index}"
    sealed = (await gather_blobs({name: place.index_sha256}, stores))[name]
    index = sealing.open_index(secret.material, place, sealed)
    pages = {ref.tenant: known.state.pages[ref.tenant] for ref in index.pages if known and _has(known, ref)}
    wanted = [ref for ref in index.pages if reread or ref.tenant not in pages]
    blobs = await gather_blobs({f"{PAGES}/{ref.name}": ref.sha256 for ref in wanted}, stores)
    state = await in_thread(_opened, index, pages, blobs)
    return Stored(
        state=state,
        secret=secret,
        refs={ref.tenant: ref for ref in index.pages},
        index=place.index,
        index_sha256=place.index_sha256,
        head=head,
    )


async def newest(
    provider: RootKeyProvider, survey: Survey, stores: Sequence[KeyringStore], *, known: Stored | None = None
) -> Stored:
    """Return the highest state of a survey that opens and verifies; IntegrityError if none does.

    Unavailable is raised at once. Trying an older head would mistake an outage for a destruction, and overwrite what
    the newer head holds. `known` is a state already open: its secret and pages are not opened again.
    """
    for head in survey.newest():
        if known is not None and head == known.head:
            return known
        try:
            return await load(provider, stores, survey.keyring, head, known=known, reread=False)
        except (Destroyed, IntegrityError):
            continue
    raise IntegrityError(
        "no replica of the keyring opens: every head is missing, changed or under a destroyed root version",
        hint="restore the newest copy of a replica; nothing was destroyed or created by this attempt",
    )


def _has(known: Stored, ref: PageRef) -> bool:
    return known.refs.get(ref.tenant) == ref


def _opened(index: Index, pages: dict[TenantId, Page], blobs: Mapping[str, bytes]) -> State:
    for ref in index.pages:
        if ref.tenant in pages:
            continue
        record = sealing.open_page(ref.key, index.keyring, ref.tenant, blobs[f"{PAGES}/{ref.name}"])
        covers = {cohort: Cover.of(nodes) for cohort, nodes in record.cohorts.items()}
        pages[ref.tenant] = Page(tenant=ref.tenant, cohorts=covers, pins=gathered(record.pins))
    return State(
        keyring=index.keyring,
        epoch=index.epoch,
        revision=index.revision,
        fence=index.fence,
        generation=index.generation,
        cohort_width_ms=index.cohort_width_ms,
        last_sweep_ms=index.last_sweep_ms,
        swept_through=index.swept_through,
        lease_ms=index.lease_ms,
        backup_key=index.backup_key,
        older_backup_keys=index.older_backup_keys,
        trial=index.trial,
        pages=pages,
    )


def _index(state: State, refs: tuple[PageRef, ...]) -> Index:
    return Index(
        keyring=state.keyring,
        epoch=state.epoch,
        revision=state.revision,
        fence=state.fence,
        generation=state.generation,
        last_sweep_ms=state.last_sweep_ms,
        swept_through=state.swept_through,
        cohort_width_ms=state.cohort_width_ms,
        lease_ms=state.lease_ms,
        backup_key=state.backup_key,
        older_backup_keys=state.older_backup_keys,
        trial=state.trial,
        pages=refs,
    )

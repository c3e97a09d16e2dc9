"""Seals the keyring's state into files, and opens it again."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import Final

from vault.crypto.ggm import Cover
from vault.crypto.spans import Runs
from vault.errors import Destroyed, FormatError, IntegrityError, Tampered
from vault.format.keyring import INDEX, PAGES, Head, Index, PageRecord, PageRef, decode_head, encode_head
from vault.ids import TenantId
from vault.keystore import sealing
from vault.keystore.replicas import Survey, gather_blobs
from vault.keystore.state import Page, State
from vault.model import Cohort
from vault.ports.keys import KeyringStore, RootKeyProvider
from vault.ports.time import Entropy
from vault.threads import in_thread

_NAME_BYTES: Final = 16
_PAGE_BYTES: Final = 1 << 18
"""About how many bytes a page has where a tenant has several; twice as many divide it."""
_NODE_WEIGHT: Final = 40
_TAG_WEIGHT: Final = 30
_RUN_WEIGHT: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochSecret:
    """The 32 bytes that the other keys of one epoch depend on, and their wrapped form."""

    root: str
    wrapped: bytes
    material: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """One page, and the cohorts of its tenant that are on it, in order."""

    ref: PageRef
    cohorts: tuple[Cohort, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A state together with its sealed bytes."""

    state: State
    secret: EpochSecret
    pages: Mapping[TenantId, Sequence[Sealed]]
    index: str
    index_sha256: bytes
    head: bytes = field(repr=False)

    @property
    def refs(self) -> tuple[PageRef, ...]:
        """The pages, in tenant order."""
        return tuple(each.ref for tenant in sorted(self.pages) for each in self.pages[tenant])

    def blobs(self) -> Mapping[str, bytes]:
        """Return the names of all blobs this revision consists of, with their hashes."""
        return {
            f"{INDEX}/{self.index}": self.index_sha256,
            **{f"{PAGES}/{ref.name}": ref.sha256 for ref in self.refs},
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

    Pages of which nothing has changed since `before` keep their blobs. So a change writes only the pages of the cohorts
    that it touches, and the index. Cohorts and pins that are the same objects have not changed.
    """
    pages: dict[TenantId, Sequence[Sealed]] = {}
    blobs: dict[str, bytes] = {}
    for tenant in sorted(state.pages):
        page = state.pages[tenant]
        former = before.state.pages.get(tenant) if before is not None else None
        there = before.pages[tenant] if before is not None and former is not None else ()
        if former is page:
            pages[tenant] = there
            continue
        pages[tenant] = [
            same if same is not None and _unchanged(same, former, page) else _seal(state, page, cohorts, entropy, blobs)
            for cohorts, same in _shared_out(page, there)
        ]
    refs = tuple(each.ref for tenant in sorted(pages) for each in pages[tenant])
    sealed = sealing.seal_index(secret.material, _index(state, refs), entropy(sealing.SALT_BYTES))
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
        pages=pages,
        index=head.index,
        index_sha256=head.index_sha256,
        head=encode_head(head, sealing.head_mac(secret.material, head)),
    )
    return stored, blobs


def _seal(state: State, page: Page, cohorts: tuple[Cohort, ...], entropy: Entropy, blobs: dict[str, bytes]) -> Sealed:
    key = entropy(32)
    record = PageRecord(
        tenant=page.tenant,
        cohorts={cohort: page.cohorts[cohort].nodes for cohort in cohorts},
        pins={
            cohort: {tag: runs.spans for tag, runs in page.pins[cohort].items()}
            for cohort in cohorts
            if cohort in page.pins
        },
    )
    sealed = sealing.seal_page(key, state.keyring, record)
    ref = PageRef(tenant=page.tenant, name=entropy(_NAME_BYTES).hex(), sha256=hashlib.sha256(sealed).digest(), key=key)
    blobs[f"{PAGES}/{ref.name}"] = sealed
    return Sealed(ref=ref, cohorts=cohorts)


def _shared_out(page: Page, there: Sequence[Sealed]) -> Iterator[tuple[tuple[Cohort, ...], Sealed | None]]:
    """Yield the cohorts of each page, with the page that has had exactly these; in order.

    A new cohort goes to the page that its neighbour is on. A page that has become too large is divided, and a tenant's
    pages become one again where all of it is small, so that an index stays short.
    """
    ordered = sorted(page.cohorts)
    weights = {cohort: _weight(page, cohort) for cohort in ordered}
    if sum(weights.values()) <= _PAGE_BYTES // 2:
        there = there if len(there) == 1 else ()
    beginnings = [each.cohorts[0] for each in there[1:]]
    groups: list[list[Cohort]] = [[] for _ in range(len(beginnings) + 1)]
    for cohort in ordered:
        groups[bisect_right(beginnings, cohort)].append(cohort)
    for at, group in enumerate(groups):
        if sum(weights[cohort] for cohort in group) <= 2 * _PAGE_BYTES:
            pieces = [group] if group else []
        else:
            pieces = list(_divided(group, weights))
        for piece in pieces:
            same = there[at] if at < len(there) and there[at].cohorts == tuple(piece) else None
            yield tuple(piece), same


def _divided(group: Sequence[Cohort], weights: Mapping[Cohort, int]) -> Iterator[list[Cohort]]:
    piece: list[Cohort] = []
    room = _PAGE_BYTES
    for cohort in group:
        if piece and weights[cohort] > room:
            yield piece
            piece, room = [], _PAGE_BYTES
        piece.append(cohort)
        room -= weights[cohort]
    yield piece


def _weight(page: Page, cohort: Cohort) -> int:
    """Return about how many bytes a cohort takes on a page."""
    runs = sum(_TAG_WEIGHT + _RUN_WEIGHT * len(each) for each in page.pins.get(cohort, {}).values())
    return _NODE_WEIGHT * len(page.cohorts[cohort].nodes) + runs


def _unchanged(sealed: Sealed, former: Page | None, page: Page) -> bool:
    return former is not None and all(
        former.cohorts.get(cohort) is page.cohorts[cohort] and former.pins.get(cohort) is page.pins.get(cohort)
        for cohort in sealed.cohorts
    )


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
    open_already = {each.ref: each for some in known.pages.values() for each in some} if known else {}
    wanted = [ref for ref in index.pages if reread or ref not in open_already]
    blobs = await gather_blobs({f"{PAGES}/{ref.name}": ref.sha256 for ref in wanted}, stores)
    state, pages = await in_thread(_opened, index, known, open_already, blobs)
    return Stored(
        state=state,
        secret=secret,
        pages=pages,
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


def _opened(
    index: Index, known: Stored | None, open_already: Mapping[PageRef, Sealed], blobs: Mapping[str, bytes]
) -> tuple[State, Mapping[TenantId, Sequence[Sealed]]]:
    sealed: dict[TenantId, list[Sealed]] = {}
    pages: dict[TenantId, Page] = {}
    for tenant, refs in groupby(index.pages, key=attrgetter("tenant")):
        sealed[tenant] = []
        cohorts: dict[Cohort, Cover] = {}
        pins: dict[Cohort, Mapping[bytes, Runs]] = {}
        for ref in refs:
            if known is not None and ref in open_already:
                here, former = open_already[ref], known.state.pages[tenant]
                cohorts |= {cohort: former.cohorts[cohort] for cohort in here.cohorts}
                pins |= {cohort: former.pins[cohort] for cohort in here.cohorts if cohort in former.pins}
            else:
                record = sealing.open_page(ref.key, index.keyring, tenant, blobs[f"{PAGES}/{ref.name}"])
                here = Sealed(ref=ref, cohorts=tuple(sorted(record.cohorts)))
                cohorts |= {cohort: Cover.of(nodes) for cohort, nodes in record.cohorts.items()}
                pins |= {
                    cohort: {tag: Runs(tuple(runs)) for tag, runs in by_tag.items()}
                    for cohort, by_tag in record.pins.items()
                }
            sealed[tenant].append(here)
        ordered = [cohort for each in sealed[tenant] for cohort in each.cohorts]
        if ordered != sorted(set(ordered)):
            raise FormatError("a tenant's pages overlap or are not in order")
        if known is not None and sealed[tenant] == [*known.pages.get(tenant, ())]:
            pages[tenant] = known.state.pages[tenant]
        else:
            pages[tenant] = Page(tenant=tenant, cohorts=cohorts, pins=pins)
    return _state(index, pages), sealed


def _state(index: Index, pages: Mapping[TenantId, Page]) -> State:
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

"""Byte layouts of the keyring: marker, head, index and page (docs/format.md, "Keyring").

These are the plaintext layouts; `vault.keystore` seals them. Bytes that `encode_*` would not write raise FormatError.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final

from vault.errors import FormatError, Invalid
from vault.format.codec import fields, pack, unpack
from vault.ids import TenantId, parse_tenant
from vault.model import Cohort, Part, Pin

FORMAT: Final = 1
"""The format version of markers."""
PAGE_FORMAT: Final = 2
"""The format version of pages. 1 had an array for each pin; 2 has the runs of a cohort and tag in one string."""
HEAD_FORMAT: Final = 2
"""The format version of heads and indexes. 2 added the fence to the head, the lease and backup key to the index."""
MANY_PAGES: Final = 3
"""The format version of an index that names several pages of a tenant; any other is of HEAD_FORMAT."""
MARKER: Final = "REPLICA"
HEAD: Final = "head"
INDEX: Final = "index"
PAGES: Final = "pages"
"""The names in a replica: the marker, the head, and two folders of blobs."""
ID_BYTES: Final = 16
TAG_BYTES: Final = 16
HASH_BYTES: Final = 32
KEY_BYTES: Final = 32
DEPTH: Final = 32

_NODE: Final = struct.Struct(">BI32s")
_NAME: Final = re.compile(r"[0-9a-f]{32}")
_U32: Final = 1 << 32
_U48: Final = 1 << 48
_LEB: Final = 1 << 7
_MOST_SHIFT: Final = 28

Nodes = Mapping[tuple[int, int], bytes]
"""The 32-byte seed of each node, by depth and prefix."""
Run = tuple[int, int]
"""First and last leaf, both included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The file that a replica is opened with. `wrapped` is the epoch secret under root version `root`.

    Heads are ordered by `rank`. A writer that takes over increases the fence, so a head that the former writer still
    writes has a lower rank.
    """

    keyring: bytes
    fence: int
    epoch: int
    revision: int
    root: str
    wrapped: bytes
    index: str
    index_sha256: bytes

    @property
    def rank(self) -> tuple[int, int, int]:
        """Fence, epoch, revision: of two heads of one keyring the higher is the newer."""
        return self.fence, self.epoch, self.revision


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRef:
    """A tenant's page: its blob name, its SHA-256, and the key that it is sealed under."""

    tenant: TenantId
    name: str
    sha256: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """The content of one revision of the keyring. Times are Unix milliseconds.

    `swept_through` is the last period that a sweep shredded. A cohort of such a period is not created again: a new tree
    under an old coordinate would make a shredded recording look readable. `lease_ms` is how long a process may use its
    view of the keyring without reading the replicas again. `backup_key` encrypts new backups, `older_backup_keys` the
    earlier ones, newest first; a rotation makes a new key. `trial` tells whether the vault was created as a trial
    vault; None in a keyring older than that mark.
    """

    keyring: bytes
    epoch: int
    revision: int
    fence: int
    generation: int
    last_sweep_ms: int | None
    swept_through: int | None
    cohort_width_ms: int
    lease_ms: int
    backup_key: bytes = field(repr=False)
    older_backup_keys: tuple[bytes, ...] = field(default=(), repr=False)
    trial: bool | None = None
    pages: tuple[PageRef, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRecord:
    """One tenant's trees, or some of them, and their pins: by cohort and tag, runs that neither overlap nor adjoin."""

    tenant: TenantId
    cohorts: Mapping[Cohort, Nodes] = field(repr=False)
    pins: Mapping[Cohort, Mapping[bytes, Sequence[Run]]]


def encode_marker(keyring: bytes) -> bytes:
    """Return the content of a replica's marker file."""
    return pack({"format": FORMAT, "keyring": keyring, "kind": "keyring replica"})


def decode_marker(data: bytes) -> bytes:
    """Return the 16-byte keyring id that the marker names; FormatError."""
    kind, version, keyring = fields(unpack(data), kind=str, format=int, keyring=bytes)
    _require(kind == "keyring replica" and version == FORMAT, "not the marker of a keyring replica of format 1")
    _require(len(keyring) == ID_BYTES, "a keyring id is 16 bytes")
    return bytes(keyring)


def head_body(head: Head) -> bytes:
    """Return the bytes of a head that its MAC is computed over."""
    return pack(
        {
            "format": HEAD_FORMAT,
            "keyring": head.keyring,
            "fence": head.fence,
            "epoch": head.epoch,
            "revision": head.revision,
            "root": head.root,
            "wrapped": head.wrapped,
            "index": head.index,
            "index_sha256": head.index_sha256,
        }
    )


def encode_head(head: Head, mac: bytes) -> bytes:
    """Return the content of a head file."""
    return pack([head_body(head), mac])


def decode_head(data: bytes) -> tuple[Head, bytes]:
    """Return a head and its MAC, which is not verified here; raises FormatError."""
    match unpack(data):
        case [bytes() as body, bytes() as mac] if len(mac) == HASH_BYTES:
            pass
        case _:
            raise FormatError("a head is a body and a MAC of 32 bytes")
    version, keyring, fence, epoch, revision, root, wrapped, index, index_sha256 = fields(
        unpack(body),
        format=int,
        keyring=bytes,
        fence=int,
        epoch=int,
        revision=int,
        root=str,
        wrapped=bytes,
        index=str,
        index_sha256=bytes,
    )
    _require(version == HEAD_FORMAT, "not a head of format 2")
    _require(len(keyring) == ID_BYTES and len(index_sha256) == HASH_BYTES, "a head's id or hash has the wrong size")
    _require(0 < epoch < _U48, "a head's epoch is out of range")
    _require(0 <= revision < _U48 and 0 <= fence < _U48, "a head's revision or fence is out of range")
    _require(_NAME.fullmatch(index) is not None, "a head's index name is not 32 hex digits")
    head = Head(
        keyring=keyring,
        fence=fence,
        epoch=epoch,
        revision=revision,
        root=root,
        wrapped=wrapped,
        index=index,
        index_sha256=index_sha256,
    )
    return head, mac


def encode_index(index: Index) -> bytes:
    """Return the plaintext of an index; pages go in tenant order."""
    return pack(
        {
            "format": _index_format([ref.tenant for ref in index.pages]),
            "keyring": index.keyring,
            "epoch": index.epoch,
            "revision": index.revision,
            "fence": index.fence,
            "generation": index.generation,
            "last_sweep_ms": _optional(index.last_sweep_ms),
            "swept_through": _optional(index.swept_through),
            "cohort_width_ms": index.cohort_width_ms,
            "lease_ms": index.lease_ms,
            "backup_key": index.backup_key,
            **({"older_backup_keys": [*index.older_backup_keys]} if index.older_backup_keys else {}),
            **({} if index.trial is None else {"trial": index.trial}),
            "pages": [[ref.tenant, ref.name, ref.sha256, ref.key] for ref in index.pages],
        }
    )


def decode_index(data: bytes) -> Index:
    """Return the index that `encode_index` wrote; FormatError."""
    value = unpack(data)
    older = value.pop("older_backup_keys") if isinstance(value, dict) and "older_backup_keys" in value else None
    # Absent, not empty, in a keyring that was never rotated: each value has one encoding.
    _require(older is None or _are_keys(older), "an index's older backup keys are not keys")
    trial = None
    # Absent in a keyring older than the mark; it stays absent there.
    if isinstance(value, dict) and "trial" in value:
        trial = value.pop("trial")
        _require(type(trial) is bool, "an index's trial mark is not a truth value")
    version, keyring, epoch, revision, fence, generation, last_sweep, swept_through, width, lease, key, pages = fields(
        value,
        format=int,
        keyring=bytes,
        epoch=int,
        revision=int,
        fence=int,
        generation=int,
        last_sweep_ms=list,
        swept_through=list,
        cohort_width_ms=int,
        lease_ms=int,
        backup_key=bytes,
        pages=list,
    )
    _require(version in (HEAD_FORMAT, MANY_PAGES) and len(keyring) == ID_BYTES, "not an index of format 2 or 3")
    _require(0 < lease < _U48 and len(key) == KEY_BYTES, "an index's lease or backup key is impossible")
    _require(0 < epoch < _U48 and 0 <= revision < _U48 and 0 <= fence < _U48, "an index's number is out of range")
    _require(0 <= generation < _U32 and 0 < width < _U48, "an index's generation or cohort width is out of range")
    refs = tuple(_page_ref(item) for item in pages)
    tenants = [ref.tenant for ref in refs]
    _require(tenants == sorted(tenants), "an index's pages are not in tenant order")
    _require(version == _index_format(tenants), "an index has the format of another number of pages")
    _require(len({ref.name for ref in refs}) == len(refs), "an index names a page twice")
    return Index(
        keyring=keyring,
        epoch=epoch,
        revision=revision,
        fence=fence,
        generation=generation,
        last_sweep_ms=_option(last_sweep),
        swept_through=_option(swept_through),
        cohort_width_ms=width,
        lease_ms=lease,
        backup_key=key,
        older_backup_keys=tuple(older or ()),
        trial=trial,
        pages=refs,
    )


def encode_page(page: PageRecord) -> bytes:
    """Return the plaintext of a page; cohorts, nodes, tags and runs each in ascending order."""
    return pack(
        {
            "format": PAGE_FORMAT,
            "tenant": page.tenant,
            "cohorts": [[*_place(cohort), _encode_nodes(page.cohorts[cohort])] for cohort in sorted(page.cohorts)],
            "pins": [
                [*_place(cohort), tag, _encode_runs(page.pins[cohort][tag])]
                for cohort in sorted(page.pins)
                for tag in sorted(page.pins[cohort])
            ],
        }
    )


def decode_page(data: bytes) -> PageRecord:
    """Return the page that `encode_page` wrote, or an earlier version, whose pins were arrays; FormatError."""
    version, name, cohort_items, pin_items = fields(unpack(data), format=int, tenant=str, cohorts=list, pins=list)
    _require(version in (FORMAT, PAGE_FORMAT), "not a page of format 1 or 2")
    tenant = _tenant(name)
    cohorts: dict[Cohort, Nodes] = {}
    for item in cohort_items:
        match item:
            case [str() as part, int() as period, int() as generation, bytes() as nodes]:
                cohorts[_cohort(tenant, part, period, generation)] = _decode_nodes(nodes)
            case _:
                raise FormatError("a cohort is [part, period, generation, nodes]")
    _require(len(cohorts) == len(cohort_items) and list(cohorts) == sorted(cohorts), "cohorts are not in order")
    pins = _pins_of_format_1(tenant, pin_items) if version == FORMAT else _pins(tenant, pin_items)
    _require(pins.keys() <= cohorts.keys(), "a pin names a cohort that is not on its page")
    return PageRecord(tenant=tenant, cohorts=cohorts, pins=pins)


def _pins(tenant: TenantId, items: list[Any]) -> dict[Cohort, dict[bytes, Sequence[Run]]]:
    found: dict[Cohort, dict[bytes, Sequence[Run]]] = {}
    order: list[tuple[Cohort, bytes]] = []
    for item in items:
        match item:
            case [str() as part, int() as period, int() as generation, bytes() as tag, bytes() as runs]:
                _require(len(tag) == TAG_BYTES, "a pin's tag is not 16 bytes")
                cohort = _cohort(tenant, part, period, generation)
                found.setdefault(cohort, {})[tag] = _decode_runs(runs)
                order.append((cohort, tag))
            case _:
                raise FormatError("pins are [part, period, generation, tag, runs]")
    _require(order == sorted(set(order)), "pins are not in order")
    return found


def _pins_of_format_1(tenant: TenantId, items: list[Any]) -> dict[Cohort, dict[bytes, Sequence[Run]]]:
    pins = [_pin(tenant, item) for item in items]
    _require(pins == sorted(set(pins), key=_pin_order), "pins are not in order")
    found: dict[Cohort, dict[bytes, list[Run]]] = {}
    for pin in pins:
        runs = found.setdefault(pin.cohort, {}).setdefault(pin.tag, [])
        # They came in order of their first leaf, and could overlap.
        if runs and pin.first <= runs[-1][1] + 1:
            runs[-1] = runs[-1][0], max(runs[-1][1], pin.last)
        else:
            runs.append((pin.first, pin.last))
    return {cohort: {tag: tuple(runs) for tag, runs in by_tag.items()} for cohort, by_tag in found.items()}


def _encode_runs(runs: Sequence[Run]) -> bytes:
    """Return runs as numbers in LEB128: how far each begins behind the earliest leaf it may, and how far it goes on."""
    steps: list[int] = []
    free = 0
    for first, last in runs:
        steps += first - free, last - first
        free = last + 2
    if max(steps) < _LEB:
        return bytes(steps)
    found = bytearray()
    for step in steps:
        left = step
        while left >= _LEB:
            found.append(left & _LEB - 1 | _LEB)
            left >>= 7
        found.append(left)
    return bytes(found)


def _decode_runs(data: bytes) -> Sequence[Run]:
    steps = list(data) if data and max(data) < _LEB else _numbers(data)
    _require(bool(steps) and len(steps) % 2 == 0, "runs are one or more pairs of numbers")
    for at in range(2, len(steps), 2):
        steps[at] += 2
    leaves = list(accumulate(steps))
    _require(leaves[-1] < _U32, "a run goes beyond the last leaf")
    return tuple(zip(leaves[::2], leaves[1::2], strict=True))


def _numbers(data: bytes) -> list[int]:
    found: list[int] = []
    value = shift = 0
    for byte in data:
        value |= (byte & _LEB - 1) << shift
        if byte >= _LEB:
            shift += 7
            _require(shift <= _MOST_SHIFT, "a number of a run is too long")
            continue
        # A last byte of zero would be a second encoding of the same number.
        _require(byte > 0 or shift == 0, "a number of a run is not in its shortest form")
        found.append(value)
        value = shift = 0
    _require(shift == 0, "a number of a run is cut off")
    return found


def _index_format(tenants: Sequence[TenantId]) -> int:
    return HEAD_FORMAT if len(set(tenants)) == len(tenants) else MANY_PAGES


def _require(condition: bool, message: str) -> None:  # noqa: FBT001 - the condition is the sentence's subject
    if not condition:
        raise FormatError(message)


def _optional(value: int | None) -> list[int]:
    return [] if value is None else [value]


def _option(items: list[Any]) -> int | None:
    match items:
        case []:
            return None
        case [int() as value] if type(value) is int and 0 <= value < _U48:
            return value
        case _:
            raise FormatError("an optional number is a list of none or one")


def _tenant(name: str) -> TenantId:
    try:
        return parse_tenant(name)
    except Invalid as error:
        raise FormatError("an impossible tenant id") from error


def _page_ref(item: Any) -> PageRef:
    match item:
        case [str() as tenant, str() as name, bytes() as digest, bytes() as key]:
            _require(_NAME.fullmatch(name) is not None, "a page's name is not 32 hex digits")
            _require(len(digest) == HASH_BYTES and len(key) == KEY_BYTES, "a page's hash or key has the wrong size")
            return PageRef(tenant=_tenant(tenant), name=name, sha256=digest, key=key)
        case _:
            raise FormatError("a page reference is [tenant, name, sha256, key]")


def _place(cohort: Cohort) -> list[str | int]:
    return [cohort.part.value, cohort.period, cohort.generation]


_PARTS: Final = {part.value: part for part in Part}


def _cohort(tenant: TenantId, part: str, period: int, generation: int) -> Cohort:
    _require(type(period) is int and type(generation) is int, "a cohort's number is not an integer")
    _require(0 <= period < _U48 and 0 <= generation < _U32, "a cohort's number is out of range")
    try:
        return Cohort(tenant=tenant, part=_PARTS[part], period=period, generation=generation)
    except KeyError as error:
        raise FormatError("a cohort names an impossible part") from error


def _pin_order(pin: Pin) -> tuple[Cohort, int, int, bytes]:
    return pin.cohort, pin.first, pin.last, pin.tag


def _pin(tenant: TenantId, item: Any) -> Pin:
    match item:
        case [str() as part, int() as period, int() as generation, int() as first, int() as last, bytes() as tag]:
            _require(type(first) is int and type(last) is int, "a pin's leaf is not an integer")
            _require(0 <= first <= last < _U32 and len(tag) == TAG_BYTES, "a pin's range or tag is impossible")
            return Pin(cohort=_cohort(tenant, part, period, generation), first=first, last=last, tag=tag)
        case _:
            raise FormatError("a pin is [part, period, generation, first, last, tag]")


def _are_keys(value: Any) -> bool:
    keys = value if isinstance(value, list) else []
    return bool(keys) and all(type(key) is bytes and len(key) == KEY_BYTES for key in keys)


def _first_leaf(node: tuple[int, int]) -> int:
    depth, prefix = node
    return prefix << (DEPTH - depth)


def _encode_nodes(nodes: Nodes) -> bytes:
    return b"".join(_NODE.pack(*node, nodes[node]) for node in sorted(nodes, key=_first_leaf))


def _decode_nodes(data: bytes) -> Nodes:
    _require(bool(data) and len(data) % _NODE.size == 0, "a cover is one or more nodes of 37 bytes")
    nodes: dict[tuple[int, int], bytes] = {}
    free = 0
    for depth, prefix, seed in _NODE.iter_unpack(data):
        # An overlapping node could derive punctured leaves; another order would be a second encoding of one cover.
        _require(depth <= DEPTH and prefix < 1 << depth, "a node lies outside its tree")
        _require(prefix << (DEPTH - depth) >= free, "nodes overlap or are not in order")
        nodes[depth, prefix] = seed
        free = prefix + 1 << (DEPTH - depth)
    return nodes

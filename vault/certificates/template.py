"""Certificate documents stored in two pieces: a form that many certificates share, and an entry of their own values.

A form is the text of a document with marks in the place of values. A mark is a line feed or a carriage return, which
canonical JSON escapes and so never contains, and the letter of a value. After a line feed the value is in the entry;
after a carriage return it is the one of the certificate that this one supersedes. An entry has its values one after the
other in the order of their marks, each in a fixed number of bytes. Joining the two in turn gives the document byte for
byte, even if a later version of this program knows other members.

Earlier entries are text: values separated by line feeds, for a form in which a line feed alone is a mark.
"""

from __future__ import annotations

import hashlib
import json
import re
from binascii import hexlify
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from struct import Struct
from struct import error as StructError  # noqa: N812 - a class that the library spells small
from typing import Any, Final, NamedTuple, TypeAlias

import rfc8785

from vault.certificates.attested import EXPIRED, PartKey, Policy, StoredObject, Subject
from vault.certificates.batch import counted, counted_below
from vault.certificates.canonical import canonical_json
from vault.certificates.document import DeletionCertificate
from vault.errors import FormatError, Invalid
from vault.format.names import object_below, period_prefix
from vault.ids import RecordingId, id_bytes
from vault.model import Cohort, Coordinate

Values: TypeAlias = Mapping[str, Any]
"""A certificate's own values by letter: bytes, or numbers; times are microseconds since the Unix epoch."""
Columns: TypeAlias = Mapping[str, Sequence[Any]]
"""The values of several certificates by letter, in one order."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_OWN, _SUPERSEDED = "\n", "\r"
_MARK: Final = re.compile("([\n\r])(.)")
_DELETED: Final = re.compile(r"(\d{1,9}) names deleted in (\d{1,9}) versions, absence verified", re.ASCII)
_LEAVES, COMMITMENTS = "012", "ABC"


@lru_cache(maxsize=16384)
def _minute(minutes: int) -> bytes:
    try:
        return f"{(_EPOCH + timedelta(minutes=minutes)).isoformat()[:-8]}".encode()
    except OverflowError:
        raise FormatError("a certificate's entry has a time that no calendar has") from None


def _time(micros: int) -> bytes:
    # As `stamp`, several times faster: a sweep writes millions, of a few days.
    minutes, rest = divmod(micros, 60_000_000)
    return b"%b%02d.%06dZ" % (_minute(minutes), *divmod(rest, 1_000_000))


def micros(instant: datetime) -> int:
    """Return whole microseconds since the Unix epoch; `instant` carries its zone."""
    return (instant - _EPOCH) // _MICROSECOND


_number: Final[Callable[[int], bytes]] = b"%d".__mod__
_KINDS: Final[Mapping[str, tuple[str, Callable[[Any], bytes]]]] = {
    **dict.fromkeys("crsn", ("16s", hexlify)),
    **dict.fromkeys("m" + COMMITMENTS, ("32s", hexlify)),
    **dict.fromkeys("oxy" + _LEAVES, ("I", _number)),
    "b": ("Q", _number),
    **dict.fromkeys("aeuv", ("q", _time)),
}
"""How many bytes a value takes in an entry, and its text, by the letter of its mark.

c: the certificate, r: the recording, s: the superseded one, n: the nonce; o, b, m: objects, their bytes and root;
0 and A, 1 and B, 2 and C: leaf and commitment of each part; a, e, u: captured, received, retain-until; v: verified;
x, y: names and versions deleted.
"""
_INHERITED: Final = frozenset("obmaeu" + _LEAVES + COMMITMENTS)
"""What a final certificate says as the provisional one does."""


def values_of(certificate: DeletionCertificate) -> Values:
    """Return the certificate's own values; Invalid for malformed ids."""
    objects, retention = certificate.data.objects, certificate.retention
    found: dict[str, Any] = {
        "c": id_bytes(certificate.certificate_id),
        "r": id_bytes(certificate.recording.id),
        "n": bytes.fromhex(certificate.nonce),
        "o": objects.count,
        "b": objects.bytes,
        "m": bytes.fromhex(objects.root),
        "a": micros(retention.captured_at),
        "e": micros(retention.received_at),
        "u": micros(retention.retain_until),
        "v": micros(certificate.verification.at),
    }
    for leaf, letter, part in zip(_LEAVES, COMMITMENTS, certificate.recording.parts, strict=False):
        found[leaf] = part.coordinate.leaf
        if part.key_commitment is not None:
            found[letter] = bytes.fromhex(part.key_commitment)
    if certificate.supersedes is not None:
        found["s"] = id_bytes(certificate.supersedes)
    for copy in certificate.sanitisation.data_copies[:1]:
        if match := _DELETED.fullmatch(copy.action):
            found["x"], found["y"] = int(match[1]), int(match[2])
    return found


def provisional_values(subject: Subject) -> Values:
    """Return the values of a provisional certificate of `subject` that are the subject's."""
    count, total, root = counted(subject.objects)
    found: dict[str, Any] = {
        "r": bytes.fromhex(subject.recording_id[4:]),
        "o": count,
        "b": total,
        "m": root,
        "a": micros(subject.captured_at),
        "e": micros(subject.received_at),
        "u": micros(subject.retain_until),
    }
    for leaf, letter, (coordinate, commitment) in zip(_LEAVES, COMMITMENTS, subject.parts, strict=False):
        found[leaf], found[letter] = coordinate.leaf, commitment
    return found


class Lot(NamedTuple):
    """Recordings of one cohort and one policy whose audio was due, as columns: a sweep takes a million.

    `commitments` are empty if no key has one, `objects` if nothing was stored. Times are microseconds since the Unix
    epoch. The objects of a recording are one text, in order: number, attempt, bytes and SHA-256, with colons between
    them, and spaces between objects.
    """

    cohort: Cohort
    policy: Policy
    recordings: Sequence[bytes]
    leaves: Sequence[int]
    commitments: Sequence[bytes]
    captured_at: Sequence[int]
    received_at: Sequence[int]
    retain_until: Sequence[int]
    objects: Sequence[str]

    def only(self, wanted: Callable[[int], bool]) -> Lot:
        """Return the lot of the recordings in the places that are `wanted`."""
        kept = [place for place in range(len(self.recordings)) if wanted(place)]
        cohort, policy, *columns = self
        return Lot._make((cohort, policy, *([column[place] for place in kept] if column else () for column in columns)))

    def subject(self, place: int) -> Subject:
        """Return what the certificate of one of the recordings states."""
        commitment = self.commitments[place] if self.commitments else None
        return Subject(
            RecordingId("rec_" + self.recordings[place].hex()),
            (PartKey(Coordinate(cohort=self.cohort, leaf=self.leaves[place]), commitment),),
            self.policy,
            self.policy,
            _EPOCH + self.captured_at[place] * _MICROSECOND,
            _EPOCH + self.received_at[place] * _MICROSECOND,
            _EPOCH + self.retain_until[place] * _MICROSECOND,
            tuple(self._stored(place)) if self.objects else (),
            EXPIRED,
        )

    def columns(self) -> dict[str, Sequence[Any]]:
        """Return the values that `provisional_values` gives of each subject, by letter."""
        prefix = self._prefix
        each = (
            [
                counted_below(f"{prefix}{key.hex()}/", text)
                for key, text in zip(self.recordings, self.objects, strict=True)
            ]
            if self.objects
            else [counted(())] * len(self.recordings)
        )
        return {
            "r": self.recordings,
            _LEAVES[0]: self.leaves,
            COMMITMENTS[0]: self.commitments,
            "a": self.captured_at,
            "e": self.received_at,
            "u": self.retain_until,
            **dict(zip("obm", zip(*each, strict=True), strict=True)),
        }

    @property
    def _prefix(self) -> str:
        return f"{period_prefix(self.cohort.tenant, self.cohort.period)}rec_"

    def _stored(self, place: int) -> Iterator[StoredObject]:
        prefix = f"{self._prefix}{self.recordings[place].hex()}/"
        for number, attempt, size, sha256 in (each.split(":") for each in self.objects[place].split(" ")):
            yield StoredObject(object_below(prefix, int(number), attempt), int(size), sha256)


def last_of(lots: Sequence[Lot]) -> RecordingId | None:
    """Return the last recording of lots in the order of period and id; None without any."""
    found = [(lot.cohort.period, max(lot.recordings)) for lot in lots if lot.recordings]
    return RecordingId("rec_" + max(found)[1].hex()) if found else None


@dataclass(frozen=True, slots=True)
class Form:
    """A document's text with marks; `digest` is the SHA-256 of the text and its name."""

    text: str
    digest: bytes = field(init=False)
    inherits: str = field(init=False, compare=False)
    """The letters of the values that are those of the superseded certificate."""
    supersedes: bool = field(init=False, compare=False)
    """Whether it is of certificates that supersede another one."""
    _own: str = field(init=False, repr=False, compare=False)
    _entry: Struct = field(init=False, repr=False, compare=False)
    _marks: str = field(init=False, repr=False, compare=False)
    _template: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        pieces = _MARK.split(self.text)
        marks = [*zip(pieces[1::3], pieces[2::3], strict=True)]
        # A head that every entry has, then the order of the text.
        own = "".join(dict.fromkeys(["c", "r", *(each for _, each in marks if each == "s"), *_letters(marks, _OWN)]))
        taken = "".join(dict.fromkeys(_letters(marks, _SUPERSEDED)))
        if not {*own, *taken} <= _KINDS.keys():
            raise FormatError("a certificate's form has marks that no form has")
        for name, value in (
            ("digest", hashlib.sha256(self.text.encode()).digest()),
            ("inherits", taken),
            ("supersedes", "s" in own),
            ("_own", own),
            ("_entry", Struct(">" + "".join(_KINDS[letter][0] for letter in own))),
            ("_marks", "".join(letter for _, letter in marks)),
            ("_template", "%b".join(piece.replace("%", "%%") for piece in pieces[::3]).encode()),
        ):
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, certificate: DeletionCertificate, *, inherits: bool = False) -> Form:
        """Return the form of this certificate, which others of its shred, tenant, cohort and status share.

        With `inherits` the values that a provisional certificate has too are taken from the one it supersedes.
        """
        inherits = inherits and certificate.supersedes is not None
        holes = _holes(certificate, _SUPERSEDED if inherits else _OWN)
        return cls("".join(_pieces(json.loads(canonical_json(certificate)), (), holes)))

    def entry(self, values: Values) -> bytes:
        """Return the entry of a certificate with these values; Invalid for a value that an entry cannot carry."""
        try:
            return self._entry.pack(*[values[letter] for letter in self._own])
        except (KeyError, StructError) as error:
            raise Invalid("a certificate's values do not fit its form") from error

    def values(self, entry: bytes) -> Values:
        """Return the values of an entry; FormatError if it is not an entry of this form."""
        try:
            return dict(zip(self._own, self._entry.unpack(entry), strict=True))
        except StructError as error:
            raise FormatError("a certificate's entry does not fit its form") from error

    def document(self, entry: bytes, superseded: Values | None = None) -> bytes:
        """Return the whole document; FormatError if the entry is not of this form.

        `superseded` are the values of the certificate that this one supersedes, which a form that inherits needs.
        """
        values = self.values(entry)
        try:
            found = {**{letter: (superseded or {})[letter] for letter in self.inherits}, **values}
        except KeyError as error:
            raise FormatError("a certificate needs a value that the one it supersedes does not have") from error
        return self._template % tuple([_KINDS[letter][1](found[letter]) for letter in self._marks])

    def compose(self, columns: Columns) -> tuple[list[bytes], list[bytes]]:
        """Return the entries and the documents of the certificates with these values, in order.

        They are those of `entry` and `document`; inherited values are in `columns` too. A sweep makes a million.
        """
        try:
            own = [columns[letter] for letter in self._own]
            texts = {letter: _texts(_KINDS[letter][1], columns[letter]) for letter in {*self._marks}}
            entries = [*map(self._entry.pack, *own)]
        except (KeyError, StructError) as error:
            raise Invalid("a certificate's values do not fit its form") from error
        template = self._template
        return entries, [template % row for row in zip(*[texts[letter] for letter in self._marks], strict=True)]

    def gives(self, document: bytes, values: Values, superseded: Values | None) -> bool:
        """Tell whether this form and an entry with these values give `document`."""
        try:
            return self.document(self.entry(values), superseded) == document
        except (FormatError, Invalid):
            return False


def _texts(write: Callable[[Any], bytes], column: Sequence[Any]) -> list[bytes]:
    """Return the text of each value; a value that many share is written once."""
    if column and column[0] == column[-1] and column.count(column[0]) == len(column):
        return [write(column[0])] * len(column)
    return [*map(write, column)]


def earlier_document(form: str, entry: str) -> bytes:
    """Return the document of an entry in text; FormatError if it has not as many values as the form has marks."""
    pieces, values = form.split(_OWN), entry.split(_OWN)
    if len(values) + 1 != len(pieces):
        raise FormatError("a certificate's entry does not fit its form")
    parts = [""] * (len(values) * 2 + 1)
    parts[0::2] = pieces
    parts[1::2] = values
    return "".join(parts).encode()


def _letters(marks: list[tuple[str, str]], kind: str) -> Iterator[str]:
    return (letter for mark, letter in marks if mark == kind)


def _holes(certificate: DeletionCertificate, shared: str) -> Mapping[tuple[str | int, ...], str]:
    """Return the text with a mark at each place for an own value; `shared` marks values that others may have too."""

    def mark(letter: str) -> str:
        return (shared if letter in _INHERITED else _OWN) + letter

    found: dict[tuple[str | int, ...], str] = {
        ("certificate_id",): f'"cert_{mark("c")}"',
        ("nonce",): f'"{mark("n")}"',
        ("recording", "id"): f'"rec_{mark("r")}"',
        ("retention", "captured_at"): f'"{mark("a")}"',
        ("retention", "received_at"): f'"{mark("e")}"',
        ("retention", "retain_until"): f'"{mark("u")}"',
        ("verification", "at"): f'"{mark("v")}"',
    }
    if certificate.data.objects.count:
        found |= {
            ("data", "objects", "bytes"): mark("b"),
            ("data", "objects", "count"): mark("o"),
            ("data", "objects", "root"): f'"{mark("m")}"',
        }
    for place, part in enumerate(certificate.recording.parts[: len(_LEAVES)]):
        found["recording", "parts", place, "coordinate", 4] = mark(_LEAVES[place])
        if part.key_commitment is not None:
            found["recording", "parts", place, "key_commitment"] = f'"{mark(COMMITMENTS[place])}"'
    if certificate.supersedes is not None:
        found["supersedes",] = f'"cert_{mark("s")}"'
    return found | dict(_final_holes(certificate))


def _final_holes(certificate: DeletionCertificate) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield the members about the absence of objects; most of their times are the one of the verification."""
    at = f'"{_OWN}v"'
    if certificate.sanitisation.completed == certificate.verification.at:
        yield ("sanitisation", "completed"), at
    for copy in certificate.sanitisation.data_copies[:1]:
        if copy.at == certificate.verification.at:
            yield ("sanitisation", "data_copies", 0, "at"), at
        if _DELETED.fullmatch(copy.action):
            yield (
                ("sanitisation", "data_copies", 0, "action"),
                f'"{_OWN}x names deleted in {_OWN}y versions, absence verified"',
            )


def _pieces(value: Any, here: tuple[str | int, ...], holes: Mapping[tuple[str | int, ...], str]) -> Iterator[str]:
    """Yield the canonical text of a value; names are ASCII, and a place in `holes` gets the text given there."""
    if here in holes:
        yield holes[here]
    elif isinstance(value, dict):
        mark = "{"
        for name in sorted(value):
            yield f'{mark}"{name}":'
            yield from _pieces(value[name], (*here, name), holes)
            mark = ","
        yield "}"
    elif isinstance(value, list) and value:
        mark = "["
        for index, item in enumerate(value):
            yield mark
            yield from _pieces(item, (*here, index), holes)
            mark = ","
        yield "]"
    else:
        yield rfc8785.dumps(value).decode()

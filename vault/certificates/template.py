"""Certificate documents stored in two pieces: a form that many certificates share, and an entry of their own values.

A form is the text before, between and after the holes of a document; an entry is the text of the holes. Both are
separated by line feeds, which canonical JSON escapes and so never contains. Joining the two in turn gives the document
byte for byte, even if a later version of this program knows other members.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from json.encoder import encode_basestring
from typing import Any, Final, NamedTuple

import rfc8785

from vault.certificates.attested import DataCopy, ObjectFacts, PartFacts, RecordingFacts, RetentionFacts
from vault.certificates.canonical import canonical_json, canonical_text, stamp
from vault.certificates.document import DeletionCertificate
from vault.errors import FormatError
from vault.ids import CertificateId

_HOLES: Final = (
    ("certificate_id",),
    ("data", "objects"),
    ("nonce",),
    ("recording",),
    ("retention",),
    ("sanitisation", "completed"),
    ("sanitisation", "data_copies"),
    ("supersedes",),
    ("verification", "at"),
)
"""The members that an entry holds, in the order of the canonical text."""


class Entry(NamedTuple):
    """A certificate's own values, in the order of the document. A tuple is fast to make: a sweep makes a million."""

    certificate_id: CertificateId
    objects: ObjectFacts
    nonce: str
    recording: RecordingFacts
    retention: RetentionFacts
    completed: datetime | None
    data_copies: tuple[DataCopy, ...]
    supersedes: CertificateId | None
    verified_at: datetime

    @classmethod
    def of(cls, certificate: DeletionCertificate) -> Entry:
        """Return the certificate's own values."""
        return cls(
            certificate.certificate_id,
            certificate.data.objects,
            certificate.nonce,
            certificate.recording,
            certificate.retention,
            certificate.sanitisation.completed,
            certificate.sanitisation.data_copies,
            certificate.supersedes,
            certificate.verification.at,
        )

    def inside(self, certificate: DeletionCertificate) -> DeletionCertificate:
        """Return `certificate` with these values in place of its own; Invalid if the result contradicts itself."""
        return replace(
            certificate,
            certificate_id=self.certificate_id,
            nonce=self.nonce,
            supersedes=self.supersedes,
            recording=self.recording,
            data=replace(certificate.data, objects=self.objects),
            retention=self.retention,
            sanitisation=replace(certificate.sanitisation, completed=self.completed, data_copies=self.data_copies),
            verification=replace(certificate.verification, at=self.verified_at),
        )

    def text(self) -> str:
        """Return the text of the holes; Invalid for values that canonical JSON cannot carry."""
        return "\n".join(
            (
                f'"{self.certificate_id}"',
                _OBJECTS(self.objects),
                f'"{self.nonce}"',
                f'{{"id":"{self.recording.id}","parts":[{",".join(map(_part, self.recording.parts))}]}}',
                _RETENTION(self.retention),
                "null" if self.completed is None else f'"{stamp(self.completed)}"',
                f"[{','.join(map(_COPY, self.data_copies))}]" if self.data_copies else "[]",
                "null" if self.supersedes is None else f'"{self.supersedes}"',
                f'"{stamp(self.verified_at)}"',
            )
        )


_OBJECTS: Final = canonical_text(ObjectFacts)
_RETENTION: Final = canonical_text(RetentionFacts)
_COPY: Final = canonical_text(DataCopy)
_INT: Final = canonical_text(int)


def _part(part: PartFacts) -> str:
    # Written by hand, three times as fast as `canonical_text`; the tests compare the bytes of both.
    place, cohort = part.coordinate, part.coordinate.cohort
    return (
        f'{{"coordinate":[{encode_basestring(cohort.tenant)},"{cohort.part.value}",'
        f"{_INT(cohort.period)},{_INT(cohort.generation)},{_INT(place.leaf)}],"
        f'"key_commitment":{"null" if part.key_commitment is None else encode_basestring(part.key_commitment)},'
        f'"part":"{part.part.value}","shredded_at":"{stamp(part.shredded_at)}"}}'
    )


@dataclass(frozen=True, slots=True)
class Form:
    """A document's text with holes; `digest` is the SHA-256 of the text and its name."""

    text: str
    digest: bytes = field(init=False)
    _pieces: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", hashlib.sha256(self.text.encode()).digest())
        object.__setattr__(self, "_pieces", tuple(self.text.split("\n")))

    @classmethod
    def of(cls, certificate: DeletionCertificate) -> Form:
        """Return the form of this certificate, which others of its shred, tenant and status share."""
        document = json.loads(canonical_json(certificate))
        return cls("".join(_pieces(document, ())))

    def document(self, entry: str) -> bytes:
        """Return the whole document; FormatError if the entry does not have as many values as the form has holes."""
        values = entry.split("\n")
        if len(values) + 1 != len(self._pieces):
            raise FormatError("a certificate's entry does not fit its form")
        parts = [""] * (len(values) * 2 + 1)
        parts[0::2] = self._pieces
        parts[1::2] = values
        return "".join(parts).encode()


def _pieces(document: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[str]:
    """Yield the canonical text of an object with ASCII names, a line feed in place of each hole."""
    mark = "{"
    for name in sorted(document):
        yield f'{mark}"{name}":'
        mark = ","
        here = (*above, name)
        if here in _HOLES:
            yield "\n"
        elif any(hole[: len(here)] == here for hole in _HOLES):
            yield from _pieces(document[name], here)
        else:
            yield rfc8785.dumps(document[name]).decode()
    yield "}"

import base64
import hashlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from tests.helpers.damaged import MUTATIONS, mutated
from vault.errors import VaultError
from vault.ids import parse_call_key
from vault.protocol.facts.stated import Reading
from vault.protocol.uploads import ietf as resumable
from vault.protocol.uploads import tus
from vault.protocol.uploads.resumable import (
    STEPS,
    Stage,
    Step,
    Verb,
    choose_call_key,
    content_type,
    describe,
    require_length,
    require_room,
)

LIMIT = 1 << 30

# Heads as tus-js-client 4.3.1, tuspy 1.1.0 and @uppy/tus 6.0.0 send them.
TUS = [
    (
        "POST /v1/ingest/t/tus\nTus-Resumable: 1.0.0\nUpload-Length: 300\n"
        "Upload-Metadata: filetype YXVkaW8vd2F2,filename Y2FsbC53YXY=,relativePath bnVsbA==\nContent-Length: 0"
    ),
    (
        "PATCH /v1/ingest/t/tus/u\nTus-Resumable: 1.0.0\nContent-Type: application/offset+octet-stream\n"
        "Upload-Offset: 0\nContent-Length: 100\nUpload-Checksum: sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0="
    ),
    "HEAD /v1/ingest/t/tus/u\nTus-Resumable: 1.0.0",
    (
        "PATCH /v1/ingest/t/tus/u\nTus-Resumable: 1.0.0\nContent-Type: application/offset+octet-stream\n"
        "Upload-Offset: 100\nContent-Length: 200\nUpload-Length: 300"
    ),
    "DELETE /v1/ingest/t/tus/u\nTus-Resumable: 1.0.0",
]
IETF = [
    (
        "POST /v1/ingest/t/tus\nUpload-Draft-Interop-Version: 6\nUpload-Complete: ?0\nUpload-Length: 300\n"
        "Content-Type: audio/wav\nContent-Disposition: inline; filename=\"a.wav\"; filename*=UTF-8''a%20b.wav\n"
        "Call-From: +441632960001\nContent-Length: 0"
    ),
    (
        "PATCH /v1/ingest/t/tus/u\nUpload-Draft-Interop-Version: 8\nContent-Type: application/partial-upload\n"
        "Upload-Offset: 0\nUpload-Complete: ?0\nContent-Length: 100"
    ),
    "HEAD /v1/ingest/t/tus/u\nUpload-Draft-Interop-Version: 8",
    (
        "PATCH /v1/ingest/t/tus/u\nUpload-Draft-Interop-Version: 8\nContent-Type: application/partial-upload\n"
        "Upload-Offset: 100\nUpload-Complete: ?1\nContent-Length: 200"
    ),
]


class Conversation:
    """An upload as the adapters drive it, over heads alone; a body always has the length it says."""

    def __init__(self):
        self.stage = None
        self.offset = 0
        self.total = None

    def hear(self, message):
        if isinstance(message, bytes):
            message = message.decode("latin-1")
        first, *lines = message.split("\n")
        headers = CIMultiDict(line.split(": ", 1) for line in lines if ": " in line)
        size = headers.get("Content-Length", "0")
        size = int(size) if size.isascii() and size.isdigit() and len(size) < 16 else None
        ietf = resumable.is_ietf(headers)
        match first.partition(" ")[0]:
            case "POST":
                self._create(headers, size, ietf=ietf)
            case "PATCH":
                self._append(headers, size, ietf=ietf)
            case "HEAD":
                self._enter(Verb.ASK)
            case "DELETE":
                if self._enter(Verb.TERMINATE) is Step.ENTER:
                    self.stage = Stage.GONE

    def _create(self, headers, size, *, ietf):
        if ietf:
            wanted = resumable.creation(headers, size, limit=LIMIT)
            resumable.limits(resumable.interop(headers), max_size=LIMIT, age_seconds=1)
        else:
            tus.require_version(headers)
            wanted = tus.creation(headers, limit=LIMIT)
        described = describe(wanted.metadata, wanted.unusable)
        parse_call_key(choose_call_key(described, "f00")[0])
        content_type(described)
        self.stage, self.offset, self.total = Stage.OPEN, 0, wanted.length

    def _append(self, headers, size, *, ietf):
        wanted = resumable.append(headers, size, limit=LIMIT) if ietf else tus.append(headers, limit=LIMIT)
        if self._enter(Verb.APPEND) is not Step.ENTER or wanted.offset != self.offset:
            return
        require_length(self.total, wanted.length, offset=self.offset)
        self.total = self.total if wanted.length is None else wanted.length
        require_room(self.offset, size, self.total)
        self.offset += size or 0
        if self.total == self.offset or (ietf and wanted.complete):
            self.stage = Stage.COMPLETE

    def _enter(self, verb):
        return None if self.stage is None else STEPS[self.stage, verb]


@pytest.mark.parametrize("golden", [TUS, IETF], ids=["tus", "ietf"])
def test_a_golden_transcript_completes_the_upload(golden):
    upload = Conversation()
    for message in golden[:4]:
        upload.hear(message)
    assert (upload.stage, upload.offset) == (Stage.COMPLETE, 300)


@pytest.mark.parametrize("golden", [TUS, IETF], ids=["tus", "ietf"])
def test_a_damaged_transcript_raises_only_the_vaults_errors_and_passes_no_announced_length(golden):
    for seed in range(MUTATIONS):
        upload = Conversation()
        for message in mutated(golden, seed):
            try:
                upload.hear(message)
            except VaultError:
                continue
            assert upload.total is None or upload.offset <= upload.total


@given(st.dictionaries(st.sampled_from(["call_key", "filename", "filetype", "from", "tags", "started"]), st.text()))
def test_any_metadata_is_read_back_or_refused(told):
    header = ",".join(
        f"{key} {base64.b64encode(value.encode('utf-8', 'replace')).decode()}" for key, value in told.items()
    )
    assert tus.metadata(header, Reading()) == {
        key: value.encode("utf-8", "replace").decode() for key, value in told.items()
    }
    try:
        described = describe(told)
    except VaultError:
        return
    key, _ = choose_call_key(described, "f00")
    assert parse_call_key(key) == key


@given(st.text(alphabet=string.printable))
def test_any_other_metadata_header_is_read(header):
    describe(tus.metadata(header, Reading()))


@given(st.binary(max_size=2_000), st.sampled_from(sorted(tus.CHECKSUMS)), st.integers(min_value=0))
def test_a_checksum_holds_for_its_bytes_and_for_no_changed_ones(data, algorithm, place):
    digest = hashlib.new(algorithm, data).digest()
    checksum = tus.checksum({"Upload-Checksum": f"{algorithm} {base64.b64encode(digest).decode()}"})
    checksum.require([data])
    if data:
        changed = bytearray(data)
        changed[place % len(data)] ^= 1
        with pytest.raises(VaultError):
            checksum.require([bytes(changed)])

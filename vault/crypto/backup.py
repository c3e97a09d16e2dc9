"""Seals the parts of a backup and authenticates its manifest (docs/format.md, "Backups").

The key is the keyring's backup key. No backup contains it: without the keyring its backups cannot be opened.
"""

from __future__ import annotations

import hashlib
import hmac

from vault.crypto import chunked
from vault.crypto.derive import Purpose, subkey
from vault.errors import Tampered
from vault.format.backup import BackupManifest, PartHeader, decode_manifest, encode_manifest, manifest_body
from vault.format.backup import parse_part as parse
from vault.format.backup import part_frame as framed
from vault.model import DataKey


def seal_part(key: DataKey, header: PartHeader, plaintext: bytes, *, salt: bytes) -> bytes:
    """Return the object of one part; `salt` is 24 random bytes, fresh for every call."""
    head, context = framed(header)
    return bytes(chunked.seal(subkey(key, Purpose.BACKUP), salt, context, plaintext, head=head))


def open_part(key: DataKey, expected: PartHeader, data: bytes) -> bytes:
    """Return the plaintext of the part `expected`. Raises FormatError, Truncated or Tampered."""
    header, context, start = parse(data)
    if header != expected:
        message = f"{expected.name} states another place than it was read from; nothing of it was used"
        raise Tampered(message, cause="position")
    try:
        return chunked.open_message(subkey(key, Purpose.BACKUP), context, memoryview(data)[start:])
    except Tampered as error:
        message = f"{expected.name} failed authentication: it was changed, or sealed under another keyring"
        raise Tampered(f"{message}; nothing of it was used") from error


def seal_manifest(key: DataKey, manifest: BackupManifest) -> bytes:
    """Return the stored manifest with its MAC."""
    return encode_manifest(manifest, _mac(key, manifest))


def open_manifest(key: DataKey, data: bytes) -> BackupManifest:
    """Return a manifest whose MAC was made with the backup key. Raises FormatError or Tampered."""
    manifest, mac = decode_manifest(data)
    if not hmac.compare_digest(_mac(key, manifest), mac):
        raise Tampered(
            f"the manifest of {manifest.backup} failed authentication; nothing of the backup was used",
            hint="it was changed, or belongs to another vault's keyring",
        )
    return manifest


def _mac(key: DataKey, manifest: BackupManifest) -> bytes:
    return hmac.digest(subkey(key, Purpose.BACKUP_MANIFEST), manifest_body(manifest), hashlib.sha256)

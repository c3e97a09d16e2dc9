"""Signed webhooks about safeguarding flags (Standard Webhooks 1.0.0: headers, signed content, `v1a` signatures)."""

from __future__ import annotations

import base64
import enum
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from vault.errors import Invalid
from vault.ids import HoldId, RecordingId
from vault.instants import rfc3339
from vault.model import Principal, Recording

Network = IPv4Network | IPv6Network

_MAX_URL_CHARS: Final = 2000
_FIRST_PAUSE: Final = timedelta(seconds=1)
_LONGEST_PAUSE: Final = timedelta(hours=1)
_DOUBLINGS: Final = 12


class FlagCategory(enum.StrEnum):
    """What a flag is about. It is a closed list, because alerts must not contain free text about a person."""

    ABUSE = "abuse"
    NEGLECT = "neglect"
    SELF_HARM = "self_harm"
    EXPLOITATION = "exploitation"
    THREAT = "threat"
    DISTRESS = "distress"
    OTHER = "other"


def checked_webhook(text: str) -> str:
    """Return `text` if it is the URL of a webhook: https, or http to this machine.

    Invalid for any other text, also for a URL with a user or a password. The message does not repeat the URL, because
    its path or query may hold a secret.
    """
    try:
        parts = urlsplit(text)
        _ = parts.port  # parsed only on access; an invalid one must be refused here, not at the first alert
    except ValueError as error:
        raise _invalid() from error
    usable = text.isascii() and text.isprintable() and " " not in text and len(text) <= _MAX_URL_CHARS
    if not usable or not parts.hostname or "@" in parts.netloc or parts.fragment or not _private(parts):
        raise _invalid()
    return text


def _private(parts: SplitResult) -> bool:
    if parts.scheme == "https":
        return True
    host = parts.hostname or ""
    try:
        return parts.scheme == "http" and (host == "localhost" or ip_address(host).is_loopback)
    except ValueError:
        return False


def is_forbidden_address(address: str, allowed: Sequence[Network]) -> bool:
    """Tell whether an IP address is forbidden for webhooks: it is not a public host and not in `allowed`."""
    found = ip_address(address.partition("%")[0])
    host = getattr(found, "ipv4_mapped", None) or found
    public = host.is_global and not host.is_multicast
    return not public and not any(host in network for network in allowed)


def _invalid() -> Invalid:
    return Invalid(
        "that is not the address of a webhook",
        hint="an https URL without user, password and fragment; plain http only to this machine",
    )


def origin_of(url: str | None) -> str | None:
    """Return the part of a webhook's URL that may be shown: scheme, host and port. Its path can hold a secret."""
    if url is None:
        return None
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def flagged_body(
    row: Recording, hold: HoldId, *, category: FlagCategory, actor: Principal, live: bool, at: datetime
) -> str:
    """Return the JSON text of an alert: ids, the category and who raised the flag, nothing about the callers."""
    instant = rfc3339(at)
    data: Mapping[str, Any] = {
        "recording_id": row.id,
        "hold_id": hold,
        "tenant": row.tenant,
        "flagged_at": instant,
        "live": live,
        "category": category.value,
        "flagged_by": {"role": actor.role.value, "token_name": actor.name},
        "link": recording_path(row.id),
    }
    return json.dumps({"type": "recording.flagged", "timestamp": instant, "data": data}, separators=(",", ":"))


def recording_path(recording: RecordingId) -> str:
    """Return the path of the recording on this server."""
    return f"/v1/recordings/{recording}"


def signed_headers(identifier: str, body: bytes, *, at: datetime, sign: Callable[[bytes], bytes]) -> dict[str, str]:
    """Return the headers of one attempt: `sign` makes an Ed25519 signature of `id.timestamp.body`.

    The signature cannot be mistaken for that of a JWS, which the same key signs too. A JWS begins with `e`, because its
    first part is the base64url of a JSON object; an id begins with `msg_`. The body contains braces, which base64url
    does not.
    """
    timestamp = str(int(at.timestamp()))
    signature = base64.b64encode(sign(b".".join((identifier.encode(), timestamp.encode(), body)))).decode()
    return {
        "webhook-id": identifier,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1a,{signature}",
        "content-type": "application/json",
    }


def pause_after(attempts: int, *, share: float) -> timedelta:
    """Return the pause after so many failed attempts: 1 s, doubled each time up to 1 h, times 0.5 + 0.5 `share`.

    `share` is a random number from 0 to 1.
    """
    longest = min(_FIRST_PAUSE * (1 << min(max(attempts - 1, 0), _DOUBLINGS)), _LONGEST_PAUSE)
    return longest * (0.5 + 0.5 * share)

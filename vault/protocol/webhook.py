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
    """What a flag is about. A closed list, because it travels: words about a person do not."""

    ABUSE = "abuse"
    NEGLECT = "neglect"
    SELF_HARM = "self_harm"
    EXPLOITATION = "exploitation"
    THREAT = "threat"
    DISTRESS = "distress"
    OTHER = "other"


def checked_webhook(text: str) -> str:
    """Return `text` as the address of a webhook: https, or http on the loopback; Invalid, which does not repeat it.

    An address with a user or a password is refused; a secret in its path or query is kept out of logs and answers.
    """
    try:
        parts = urlsplit(text)
        _ = parts.port  # parsed lazily, and refused here rather than at the first alert
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


def inside(address: str, allowed: Sequence[Network]) -> bool:
    """Tell whether an IP address is neither public nor in a network of `allowed`: one within, or of no single host."""
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
    """Return what may be shown of a webhook's address: scheme, host and port, for a path can be a secret."""
    if url is None:
        return None
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def flagged_body(
    row: Recording, hold: HoldId, *, category: FlagCategory, actor: Principal, live: bool, at: datetime
) -> str:
    """Return the JSON text of an alert: ids, a category and who raised it; nothing about the people on the call."""
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
    """Return where the recording is found on this server."""
    return f"/v1/recordings/{recording}"


def signed_headers(identifier: str, body: bytes, *, at: datetime, sign: Callable[[bytes], bytes]) -> dict[str, str]:
    """Return the headers of one attempt: `sign` is Ed25519 over `id.timestamp.body`.

    The id begins with `msg_`, which is no beginning of a JWS: its first part is the base64url of a JSON object, so it
    begins with `e`. And the body holds braces, which base64url does not. No signature made here verifies as a JWS.
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
    """Return how long to wait after so many failed attempts: 1 s doubled up to 1 h, of which `share` (0-1) of half."""
    longest = min(_FIRST_PAUSE * (1 << min(max(attempts - 1, 0), _DOUBLINGS)), _LONGEST_PAUSE)
    return longest * (0.5 + 0.5 * share)

"""Digest of a request as it was shown, so that nobody approves a request that has changed since they saw it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import rfc8785

from vault.errors import ChangedSince, Invalid


def shown_digest(document: Mapping[str, Any]) -> str:
    """Return the SHA-256 in hex of the document's RFC 8785 form, without its member `shown`.

    The document states what the decision rests on: who requested it, and what it would delete. It holds nothing that
    changes by itself, such as an age.
    """
    return hashlib.sha256(
        rfc8785.dumps({name: value for name, value in document.items() if name != "shown"})
    ).hexdigest()


def check_shown(stated: str | None, document: Mapping[str, Any]) -> None:
    """Raise ChangedSince unless `stated` is the digest of the document as it is now; Invalid if it is None."""
    if stated is None:
        raise Invalid(
            "an approval states the `shown` digest of the request",
            hint="read the request first, and send its member `shown`",
        )
    if stated != shown_digest(document):
        raise ChangedSince(
            "the request is not the one that was shown: it has changed since, or `shown` is of another request",
            hint="read the request again, and decide about what it says now",
        )

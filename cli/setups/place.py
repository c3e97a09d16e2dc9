"""Where a recorder sends its calls, and what one setup consists of."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from vault.errors import Invalid

if TYPE_CHECKING:
    from yarl import URL

_TOKEN: Final = re.compile(r"cv_([0-9a-f]{32})_([A-Za-z0-9_-]+)")

TOKEN: Final = "$CALLVAULT_TOKEN"  # noqa: S105 - a placeholder
TOKEN_ID: Final = "$CALLVAULT_TOKEN_ID"  # noqa: S105 - likewise
TOKEN_SECRET: Final = "$CALLVAULT_TOKEN_SECRET"  # noqa: S105 - likewise


@dataclass(frozen=True, slots=True)
class Place:
    """A server as its recorders see it, a tenant, and a recorder's token if there is one."""

    server: URL
    tenant: str
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.token is not None and not _TOKEN.fullmatch(self.token):
            raise Invalid("that is not a token", hint="copy it again, whole and alone")

    @property
    def url(self) -> str:
        """The tenant's address for recorders that speak HTTP."""
        return f"{self._root}/v1/ingest/{self.tenant}"

    @property
    def url_with_token(self) -> str:
        """The same, with the token where a URL has a password: for recorders that can say it nowhere else."""
        scheme, rest = self.url.split("://", 1)
        return f"{scheme}://recorder:{self.bearer}@{rest}"

    @property
    def websocket(self) -> str:
        """The tenant's address for recorders that speak WebSocket."""
        return f"{self.url.replace('http', 'ws', 1)}/ws"

    @property
    def audiohook(self) -> str:
        """The tenant's address for Genesys AudioHook."""
        return f"{self.url.replace('http', 'ws', 1)}/audiohook"

    @property
    def s3(self) -> str:
        """The endpoint of the S3 subset; the tenant is the bucket."""
        return f"{self._root}/s3"

    @property
    def _root(self) -> str:
        return str(self.server).rstrip("/")

    @property
    def host(self) -> str:
        """Host of the server, IPv6 in brackets."""
        host = self.server.host or ""
        return f"[{host}]" if ":" in host else host

    @property
    def port(self) -> int:
        """Port of the server."""
        return self.server.port or 443

    @property
    def encrypted(self) -> bool:
        """Whether the server speaks TLS."""
        return self.server.scheme == "https"

    @property
    def bearer(self) -> str:
        """The token, or what stands for it."""
        return self.token or TOKEN

    @property
    def token_id(self) -> str:
        """The token's id, which S3 calls an access key id; or what stands for it."""
        return f"tok_{self._parts[0]}" if self.token else TOKEN_ID

    @property
    def secret(self) -> str:
        """The token's secret part, which S3 calls a secret access key; or what stands for it."""
        return self._parts[1] if self.token else TOKEN_SECRET

    @property
    def secret_base64(self) -> str:
        """The secret's text in base64, as Genesys wants a client secret; or what stands for it."""
        if not self.token:
            return f"{TOKEN_SECRET} in base64"
        return base64.b64encode(self._parts[1].encode()).decode()

    @property
    def _parts(self) -> tuple[str, str]:
        found = _TOKEN.fullmatch(self.token or "")
        assert found is not None, "checked when it was made"
        return found[1], found[2]

    def shell(self, *, keys: bool = False) -> str:
        """Return the first lines of a script: how it comes by the token, with `keys` as an S3 key pair too."""
        given = (
            f"export CALLVAULT_TOKEN='{self.token}'"
            if self.token
            else ': "${CALLVAULT_TOKEN:?the token of a recorder}"'
        )
        lines = ["#!/usr/bin/env bash", "set -euo pipefail", given]
        if keys:
            lines += [
                'export AWS_ACCESS_KEY_ID="tok_$(cut -d_ -f2 <<<"$CALLVAULT_TOKEN")"',
                'export AWS_SECRET_ACCESS_KEY="${CALLVAULT_TOKEN#cv_*_}"',
            ]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file, or one text to paste somewhere: `path` says where it goes."""

    path: str
    content: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorder:
    """One way of recording. `source` is where its syntax comes from, `route` the address it needs on the server."""

    name: str
    title: str
    source: str
    route: str
    files: Callable[[Place], Sequence[File]]
    notes: Sequence[str] = ()

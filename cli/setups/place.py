"""The address to which a recorder sends its calls, and the parts of a recorder's setup."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from vault.errors import Invalid

if TYPE_CHECKING:
    from yarl import URL

_FORM: Final = re.compile(r"cv_([0-9a-f]{32})_([A-Za-z0-9_-]+)")

_TOKEN: Final = "$CALLVAULT_TOKEN"  # noqa: S105 - a placeholder
_TOKEN_ID: Final = "$CALLVAULT_TOKEN_ID"  # noqa: S105 - likewise
_TOKEN_SECRET: Final = "$CALLVAULT_TOKEN_SECRET"  # noqa: S105 - likewise
_AUTHORITIES: Final = "/etc/ssl/certs/ca-certificates.crt"
_AS_KEYS: Final = """export AWS_ACCESS_KEY_ID="tok_$(cut -d_ -f2 <<<"$CALLVAULT_TOKEN")"
export AWS_SECRET_ACCESS_KEY="${CALLVAULT_TOKEN#cv_*_}"
"""


@dataclass(frozen=True, slots=True)
class Place:
    """A server as its recorders reach it, a tenant, and a recorder's token if there is one."""

    server: URL
    tenant: str
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.token is not None and not _FORM.fullmatch(self.token):
            raise Invalid("not a valid token", hint="copy it again, complete and without other text")

    @property
    def encrypted(self) -> bool:
        """Whether the server speaks TLS."""
        return self.server.scheme == "https"

    def values(self) -> Mapping[str, str]:
        """Return the values for templates, by name.

        `url` is the tenant's address for recorders that speak HTTP. `url_with_token` has the token as the URL's
        password, for recorders that can send it in no other place. `token_id` and `secret` are S3's access key id and
        secret access key. Without a token, variables replace it; `url_with_variable` always has one.
        """
        root = str(self.server).rstrip("/")
        url = f"{root}/v1/ingest/{self.tenant}"
        scheme, rest = url.split("://", 1)
        stream = url.replace("http", "ws", 1)
        host = self.server.host or ""
        identifier, secret = (f"tok_{self._parts[0]}", self._parts[1]) if self.token else (_TOKEN_ID, _TOKEN_SECRET)
        return {
            "tenant": self.tenant,
            "url": url,
            "url_with_token": f"{scheme}://recorder:{self.token or _TOKEN}@{rest}",
            "url_with_variable": f"{scheme}://recorder:{_TOKEN}@{rest}",
            "websocket": f"{stream}/ws",
            "audiohook": f"{stream}/audiohook",
            "s3": f"{root}/s3",
            "host": f"[{host}]" if ":" in host else host,
            "port": str(self.server.port or 443),
            "path": self.server.path.rstrip("/"),
            "bearer": self.token or _TOKEN,
            "token_id": identifier,
            "secret": secret,
            "secret_base64": base64.b64encode(secret.encode()).decode() if self.token else f"{secret} in base64",
            "python_token": f'"{self.token}"' if self.token else 'os.environ["CALLVAULT_TOKEN"]',
            "javascript_token": f"'{self.token}'" if self.token else "process.env.CALLVAULT_TOKEN",
            "shell": self._shell(),
            "shell_with_keys": self._shell() + _AS_KEYS,
            "tls": "yes" if self.encrypted else "no",
            "ca_list": f"ca_list_file = {_AUTHORITIES}\n" if self.encrypted else "",
        }

    @property
    def _parts(self) -> tuple[str, str]:
        found = _FORM.fullmatch(self.token or "")
        assert found is not None, "checked when it was made"
        return found[1], found[2]

    def _shell(self) -> str:
        """Return the first lines of a script, which get the token."""
        given = (
            f"export CALLVAULT_TOKEN='{self.token}'"
            if self.token
            else ': "${CALLVAULT_TOKEN:?the token of a recorder}"'
        )
        return f"#!/usr/bin/env bash\nset -euo pipefail\n{given}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file, or one text to paste; `path` says where it goes."""

    path: str
    content: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorder:
    """One kind of recorder. `source` is where its syntax is documented, `route` the server's route that it uses."""

    name: str
    title: str
    source: str
    route: str
    files: Callable[[Place], Sequence[File]]
    notes: Sequence[str] = ()

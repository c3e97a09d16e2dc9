"""The end of the demo: the certificates are verified with the server stopped, as an outsider would."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, Final

from cli.demo.narrator import Narrator
from cli.demo.stage import Stage
from cli.exit_codes import Exit

_ISSUER: Final = "issuer.pub"


async def verify_offline(stage: Stage, say: Narrator, files: dict[str, str]) -> None:
    """Verify each recording's certificate in a process of its own; then show that forgeries are refused."""
    say.step(
        "Verify the certificates without the server",
        "callvault certificates verify reads two files and no network: the certificate and the issuer's public key.",
    )
    key = str(stage.data / _ISSUER)
    for recording, file in files.items():
        document = (await stage.command("certificates", "verify", file, "--key", key, "--json")).document()
        say.prove(
            document["status"] == "final" and document["certificate"]["recording"]["id"] == recording,
            f"{Path(file).name} is genuine and final, and speaks of the right recording",
            checks=len(document["checked"]),
        )
    genuine = Path(next(iter(files.values())))
    for name, path in _forge(genuine).items():
        answer = await stage.command("certificates", "verify", str(path), "--key", key)
        say.prove(
            answer.code == Exit.INTEGRITY,
            f"a copy with {name} is refused",
            exit_code=answer.code,
            answer=answer.err.strip().splitlines()[0],
        )


def _forge(genuine: Path) -> dict[str, Path]:
    """Write the certificate with changed content, and with a changed signature; return the files by change."""
    paths: dict[str, Path] = {}
    for name, forged in _forgeries(genuine.read_text()).items():
        paths[name] = genuine.with_name(f"forged-{name.replace(' ', '-')}.jws")
        paths[name].write_text(forged)
    return paths


def _forgeries(jws: str) -> dict[str, str]:
    header, payload, signature = jws.split(".")
    document: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    document["parties"]["controller"] = "Somebody Else"
    changed = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    other = base64.urlsafe_b64encode(changed).rstrip(b"=").decode()
    first = "B" if signature[0] == "A" else "A"
    return {
        "another controller named": f"{header}.{other}.{signature}",
        "one letter of the signature changed": f"{header}.{payload}.{first}{signature[1:]}",
    }

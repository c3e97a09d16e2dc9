"""The demo's last proofs: no file has the audio in clear, and certificates verify with the server stopped.

To find every run of 32 bytes it is enough to read the file in blocks of 16, because any such run covers a whole block.
Each block is looked up among all 16-byte windows of the audio. A hit is then checked for a full run.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cli.demo.narrator import Narrator
from cli.demo.stage import Stage
from cli.exit_codes import Exit

# -- searching files for audio ------------------------------------------------------------------------------------

RUN_BYTES: Final = 32
_BLOCK: Final = RUN_BYTES // 2
_SILENT_VALUES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """How much was searched, and where runs of audio were found."""

    files: int
    bytes: int
    found: tuple[str, ...]


def _silent(window: bytes) -> bool:
    # A pause is a few values near zero; such runs occur in any file and prove nothing.
    return len(set(window)) <= _SILENT_VALUES


class AudioIndex:
    """Every 16-byte window of some audio that is not silence."""

    def __init__(self, audio: bytes) -> None:
        self._audio = audio
        windows = {audio[start : start + _BLOCK] for start in range(len(audio) - _BLOCK + 1)}
        self._windows = frozenset(window for window in windows if not _silent(window))

    def runs(self, data: bytes) -> Iterator[int]:
        """Yield offsets in `data` at which at least 32 bytes of the audio are found."""
        for block in range(0, len(data) - _BLOCK + 1, _BLOCK):
            if data[block : block + _BLOCK] in self._windows:
                yield from self._run_around(data, block)

    def _run_around(self, data: bytes, block: int) -> Iterator[int]:
        for start in range(max(block - _BLOCK, 0), block + 1):
            run = data[start : start + RUN_BYTES]
            if len(run) == RUN_BYTES and run in self._audio:
                yield start
                return


def search(directory: Path, index: AudioIndex, *, words: tuple[bytes, ...] = ()) -> Searched:
    """Search every file below `directory` for runs of the indexed audio and for `words`.

    Files that vanish meanwhile were deleted by the server and are skipped.
    """
    files = size = 0
    found: list[str] = []
    for path in sorted(directory.rglob("*")):
        if not path.is_file():
            continue
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            continue
        files += 1
        size += len(data)
        name = str(path.relative_to(directory))
        found += [f"{name}:{offset}" for offset in index.runs(data)]
        found += [f"{name}: a word" for word in words if word in data]
    return Searched(files=files, bytes=size, found=tuple(found))


# -- certificates without the server ------------------------------------------------------------------------------

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

"""`callvault quickstart`: a trial vault in a directory of its own, and the commands for its first recording."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from cli.command import load_config, local, to_its_end
from cli.output import Output
from vault.disk import rename, try_lock, write_new
from vault.errors import ConfigError, Refused

_PLACE: Final = Path("callvault-trial")
_PORTS: Final = range(8080, 8100)
_IDENTITY: Final = {"processor": "A trial of Callvault", "contact": "nobody@callvault.example"}
_CALL: Final = "first-call"
_TRIAL: Final = (
    "A trial vault is for tests: its recordings may end within a day, every certificate it issues says that it is a "
    "trial, and it never becomes another vault. For real calls, use callvault init."
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    examples = ["callvault quickstart", "callvault quickstart /tmp/look-at-it", "callvault quickstart --json"]
    local(app, "quickstart", examples=examples)(quickstart)


def quickstart(
    out: Output,
    directory: Annotated[Path, typer.Argument(help="The vault's own directory: a new or an empty one.")] = _PLACE,
) -> None:
    """Make a trial vault and print the commands that serve it, record a first call and play it.

    The directory gets settings, keys, the tenant northfield-college and a sample call. It also gets files with tokens:
    for a recorder, compliance, a dpo and two operators. It appears complete or not at all. If it exists already, the
    commands are printed again and nothing is changed.

    A trial vault is for tests: its recordings may end within a day, every certificate it issues says that it is a
    trial, and it never becomes another vault. For real calls, use `callvault init`.
    """
    trial = _Trial(directory)
    made = not trial.is_whole()
    if made:
        _make(trial)
    _show(out, trial, made=made)


class _Trial:
    """The paths in a trial vault's directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "config.toml"
        self.tokens = directory / "tokens"
        self.sample = directory / "sample-call.wav"
        self.curl = self.tokens / "recorder.curl"

    def token(self, name: str) -> Path:
        """Return the path of a token's file."""
        return self.tokens / f"{name}.token"

    def is_whole(self) -> bool:
        """Tell whether a complete trial vault is there."""
        return all(path.exists() for path in (self.config, self.curl, self.sample))


def _make(trial: _Trial) -> None:
    target = trial.directory.absolute()
    if target.exists():
        if not target.is_dir() or any(target.iterdir()):
            raise Refused(f"{trial.directory} is in use; nothing was written", hint="name a new directory")
        if target.samefile(Path.cwd()):
            raise Refused("the vault gets a directory of its own, not the current one", hint="callvault quickstart")
    try:
        with _ending_in_order(), _work_place(target) as place:
            to_its_end(_furnish(_Trial(place)))
            # The rename is the only visible step, so the directory is complete or absent.
            rename(place, target)
    except OSError as error:
        raise ConfigError(f"{trial.directory} cannot be made: {error.strerror}", hint="name another place") from error


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Turn signals that end a process into KeyboardInterrupt, so that a half-made directory is removed."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _work_place(target: Path) -> Iterator[Path]:
    """Yield an empty directory beside `target` for this process alone; it is removed if the work in it fails."""
    place = target.with_name(f".{target.name}.partial")
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _take(lock, place, target)
        try:
            for left in place.iterdir():  # left by a quickstart that was killed
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            yield place
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
    finally:
        os.close(lock)


def _take(lock: int, place: Path, target: Path) -> None:
    busy = Refused(f"another quickstart is making {target}", hint="wait for it, or name another directory")
    if not try_lock(lock):
        raise busy
    found = os.fstat(lock)
    # Another quickstart may have finished between opening and locking: then this directory is the vault itself.
    if not place.exists() or place.stat().st_ino != found.st_ino:
        raise busy
    if found.st_uid != os.geteuid():
        raise Refused(f"{place} belongs to another user; nothing was written", hint="name another directory")
    os.fchmod(lock, 0o700)


async def _furnish(trial: _Trial) -> None:
    from cli.demo.stage import sample_call  # noqa: PLC0415 - a command imports what it needs when it runs
    from cli.identity import with_identity  # noqa: PLC0415 - likewise
    from cli.init import default_settings  # noqa: PLC0415 - likewise
    from vault.media.g711 import decode  # noqa: PLC0415 - likewise
    from vault.media.wav import wav_header  # noqa: PLC0415 - likewise
    from vault.model import Codec  # noqa: PLC0415 - likewise
    from vault.wiring.trial import make_trial  # noqa: PLC0415 - loads storage drivers; most commands need none

    settings = with_identity(default_settings(port=str(_free_port())), _IDENTITY)
    write_new(trial.config, [settings.encode()])
    samples = decode(Codec.PCMU, sample_call())
    write_new(trial.sample, [wav_header(rate=8000, channels=2, data_bytes=len(samples)), samples])
    trial.tokens.mkdir(mode=0o700)
    tokens = await make_trial(load_config(trial.config))
    for name, token in tokens.items():
        write_new(trial.token(name), [f"{token}\n".encode()])
    # curl reads its options from a file, so that the list of processes does not show the token.
    write_new(trial.curl, [f'header = "Authorization: Bearer {tokens["recorder"]}"\n'.encode()])


def _free_port() -> int:
    for port in _PORTS:
        with socket.socket() as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise Refused(
        f"the ports {_PORTS[0]} to {_PORTS[-1]} are all in use; nothing was made", hint="stop one of their servers"
    )


def _commands(trial: _Trial, url: str, tenant: str) -> Mapping[str, str]:
    """Return the shell commands in their order. They name files and contain no token."""
    callvault = "callvault" if shutil.which("callvault") else f"{shlex.quote(sys.executable)} -P -m cli"
    config, curl, sample, token = (
        shlex.quote(str(path)) for path in (trial.config, trial.curl, trial.sample, trial.token("compliance"))
    )
    return {
        "serve": f"{callvault} serve --config {config}",
        "record": f"curl -fsS -K {curl} -T {sample} {url}/v1/ingest/{tenant}/{_CALL}",
        "play": f"{callvault} recordings play --call-key {_CALL} --purpose quality --server {url} "
        f"--token-file {token} -o {_CALL}.wav",
    }


def _show(out: Output, trial: _Trial, *, made: bool) -> None:
    from vault.wiring.trial import TENANT  # noqa: PLC0415 - loads storage drivers; most commands need none

    url = f"http://127.0.0.1:{load_config(trial.config).server.port}"
    commands = _commands(trial, url, TENANT)
    if out.as_json:
        document = {
            "made": made,
            "trial": True,
            "directory": str(trial.directory),
            "config": str(trial.config),
            "url": url,
            "tenant": TENANT,
            "tokens": {path.stem: str(path) for path in sorted(trial.tokens.glob("*.token"))},
            "commands": dict(commands),
        }
        out.document(document)
        return
    if made:
        out.note(f"made a trial vault in {trial.directory}, with the tenant {TENANT}; its tokens are in {trial.tokens}")
    else:
        out.note(f"{trial.directory} has a trial vault already; nothing was changed")
    out.note(_TRIAL)
    out.text(f"# serve it in a terminal of its own; it prints when it listens; Ctrl-C stops it\n{commands['serve']}")
    out.text(f"# when it listens, record 18 seconds of a call in another terminal\n{commands['record']}")
    out.text(f"# write the recording to {_CALL}.wav\n{commands['play']}")
    out.hint(
        "a decision by two people needs tokens that two operators issued: here the first operator issued "
        "compliance.token and the second dpo.token, so one can request and the other approve"
    )

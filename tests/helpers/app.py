"""A whole vault behind a real socket: two tenants, a token for every role, and a client."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.helpers.approvals import issue_apart
from tests.helpers.crashing import ManualClock, leases_run_out, memory_directory
from vault.config import Config, parse_config
from vault.errors import Unavailable
from vault.ids import TenantId
from vault.model import Role
from vault.server.app import serve
from vault.services.vault import Vault
from vault.wiring import init_vault, open_vault

TENANTS = ("northfield", "southgate")
BOUND_ROLES = tuple(role for role in Role if role is not Role.OPERATOR)
PCMU = "audio/PCMU;rate=8000;channels=1"
PURPOSE = {"Purpose": "quality"}


class AppClock(ManualClock):
    """The machine's clock plus what a test adds to it."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)
        self.slept = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def advance(self, **by: float) -> None:
        self.ahead += timedelta(**by)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def problem(self) -> str:
        """The code of the problem document this is; an AssertionError if it is none."""
        assert self.headers["Content-Type"] == "application/problem+json"
        document = self.json
        assert document["status"] == self.status
        return str(document["type"].removeprefix("urn:callvault:problem:"))


@dataclass(slots=True, kw_only=True)
class App:
    """The open vault, its server's address, and who may do what there."""

    vault: Vault
    config: Config
    clock: AppClock
    url: str
    client: aiohttp.ClientSession
    tokens: dict[tuple[str | None, Role], str] = field(repr=False)
    refusals: list[bytes] = field(default_factory=list, repr=False)
    """Head and body of every answer that was no success."""

    def token(self, role: Role, tenant: str | None = TENANTS[0]) -> str:
        return self.tokens[None if role is Role.OPERATOR else tenant, role]

    async def ask(
        self,
        method: str,
        path: str,
        who: Role | str | None = Role.COMPLIANCE,
        *,
        tenant: str = TENANTS[0],
        body: Any = None,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request as a role of a tenant, as a token text, or (None) as nobody."""
        sent = dict(headers or {})
        if who is not None:
            sent["Authorization"] = "Bearer " + (self.token(who, tenant) if isinstance(who, Role) else who)
        async with self.client.request(method, path, json=body, data=data, headers=sent) as response:
            answer = Answer(status=response.status, headers=dict(response.headers), body=await response.read())
        if answer.status >= 400:
            self.refusals.append(repr(answer.headers).encode() + answer.body)
        return answer

    async def upload(
        self,
        key: str,
        audio: Any,
        *,
        tenant: str = TENANTS[0],
        media: str = PCMU,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Send one whole call and return the id of its sealed recording."""
        sent = {"Content-Type": media, **(headers or {})}
        answer = await self.ask(
            "PUT", f"/v1/ingest/{tenant}/{key}", Role.RECORDER, tenant=tenant, data=audio, headers=sent
        )
        assert answer.status == 201, answer.body
        async with asyncio.timeout(20):
            while (state := (await self.vault.catalog.recording(answer.json["recording_id"])).state) == "open":
                await asyncio.sleep(0.02)  # a busy machine may take longer to seal it than an answer waits
        assert state == "sealed"
        return str(answer.json["recording_id"])

    async def play(
        self,
        recording: str,
        who: Role = Role.COMPLIANCE,
        *,
        tenant: str = TENANTS[0],
        raw: bool = True,
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
    ) -> Answer:
        path = f"/v1/recordings/{recording}/audio" + ("?format=raw" if raw else "")
        return await self.ask(method, path, who, tenant=tenant, headers={**PURPOSE, **(headers or {})})

    async def hold(self, *recordings: str, tenant: str = TENANTS[0], **changes: Any) -> Answer:
        return await self.ask(
            "POST", "/v1/holds", Role.COMPLIANCE, tenant=tenant, body=self.hold_body(*recordings, **changes)
        )

    def hold_body(self, *recordings: str, **changes: Any) -> dict[str, Any]:
        review_at = (self.clock.now() + timedelta(days=200)).isoformat()
        words = {"matter": "SMITH-2026", "reason": "claim", "authority": "general counsel", "owner": "legal"}
        return {"kind": "legal", **words, "review_at": review_at, "recordings": list(recordings), **changes}

    async def sweep(self) -> Any:
        answer = await self.ask("POST", "/v1/sweeps", Role.OPERATOR, body={})
        assert answer.status == 200, answer.body
        return answer.json

    async def certified(self) -> Any:
        """Sweep once every lease has run out: what was shredded is certified for good."""
        await leases_run_out(self.vault, self.clock)
        return await self.sweep()

    async def audit(self, name: str | None = None) -> list[dict[str, Any]]:
        answer = await self.ask("GET", "/v1/audit?limit=1000", Role.OPERATOR)
        return [entry for entry in answer.json["entries"] if name in (None, entry["event"])]

    async def metrics(self) -> str:
        """Return the metrics with what the catalog has now, also if a busy machine takes long to read it."""
        now = self.clock.monotonic()
        async with asyncio.timeout(20):
            while self.vault.status._read_at < now:
                await self.vault.status.refresh()
        answer = await self.ask("GET", "/metrics", None)
        assert answer.status == 200
        return answer.body.decode()

    async def denials(self) -> int:
        """Return how many requests were denied to a token, as the trail has it once every count is written."""
        await self.vault.access.denials.settle()
        return sum(entry["detail"].get("count", 1) for entry in await self.audit("access.denied"))

    async def second_person(self, role: Role, tenant: str = TENANTS[0]) -> str:
        """Return the token of another person in the same role."""
        return await issue_apart(self.vault, role, TenantId(tenant), name=f"second {role.value}")


SETTINGS: Mapping[str, Any] = {
    "server": {"port": 0, "idle_timeout": "5s", "resume_grace": "60s", "finish_wait": "5s", "drain_grace": "1s"},
    "journal": {"file_bytes": "1MiB", "max_bytes": "64MiB", "disk_reserve": "1MiB"},
    "segments": {"max_bytes": "64KiB"},
    "retention": {"default": "10d", "cohort_width": "1d", "release_grace": "1d", "erasure_window": "0s"},
    # One call of two is half of what a tenant has: only tests of the guard meet it.
    "sweep": {"enabled": False, "max_jump": "400d", "max_share": 1.0},
    "keyring": {"precreate_days": 0},
}


@asynccontextmanager
async def running(base: Path, **sections: Any) -> AsyncIterator[App]:
    """Create, open and serve a vault under `base`; `sections` replace those of SETTINGS."""
    clock = AppClock()
    config = parse_config({**SETTINGS, **sections}, base=base)
    created = await init_vault(config, trial=True, clock=clock)
    async with open_vault(config, clock=clock) as vault:
        tokens = await _people(vault, created.operator_token)
        async with served(vault, config, clock, tokens) as each:
            yield each


async def _people(vault: Vault, operator: str) -> dict[tuple[str | None, Role], str]:
    """Add the tenants and return everybody's token."""
    tokens: dict[tuple[str | None, Role], str] = {(None, Role.OPERATOR): operator}
    for tenant in TENANTS:
        added = await vault.tenants.add(
            identifier=tenant, name=tenant, controller=tenant.title(), contact="dpo", retention=None, actor=None
        )
        for role in BOUND_ROLES:
            tokens[tenant, role] = await issue_apart(vault, role, added.id)
    return tokens


@asynccontextmanager
async def served(
    vault: Vault, config: Config, clock: AppClock, tokens: dict[tuple[str | None, Role], str]
) -> AsyncIterator[App]:
    """Serve an open vault; whatever was done with it, its counts are those of its rows."""
    stop, started = asyncio.Event(), asyncio.get_running_loop().create_future()
    server = asyncio.create_task(serve(vault, config, stop=stop, started=started.set_result))
    url = await started
    try:
        async with aiohttp.ClientSession(url, auto_decompress=False) as client:
            yield App(vault=vault, config=config, clock=clock, url=url, client=client, tokens=tokens)
        assert await vault.catalog.miscounted() == []
    finally:
        stop.set()
        await server


@pytest.fixture(scope="session")
def furnished() -> Iterator[tuple[Path, dict[tuple[str | None, Role], str]]]:
    """A vault that `app` copies, for making one takes longer than most tests, and the tokens of its people."""

    async def furnish(base: Path) -> dict[tuple[str | None, Role], str]:
        config = parse_config(SETTINGS, base=base)
        created = await init_vault(config, trial=True)
        async with open_vault(config, background=False) as vault:
            return await _people(vault, created.operator_token)

    with memory_directory() as base:
        yield base, asyncio.run(furnish(base))


@pytest.fixture
async def app(furnished: tuple[Path, dict[tuple[str | None, Role], str]]) -> AsyncIterator[App]:
    """A fresh vault for one test; import the fixture by name."""
    made, tokens = furnished
    with memory_directory() as base:
        shutil.copytree(made, base, dirs_exist_ok=True)
        clock, config = AppClock(), parse_config(SETTINGS, base=base)
        async with open_vault(config, clock=clock) as vault, served(vault, config, clock, dict(tokens)) as each:
            yield each


@contextmanager
def out_of_reach(where: object, name: str) -> Iterator[None]:
    """Let a method of a collaborator be Unavailable until the block ends."""

    async def unanswered(*_: object, **__: object) -> None:
        raise Unavailable("no answer")

    with pytest.MonkeyPatch.context() as outage:
        outage.setattr(where, name, unanswered)
        yield


def sound(size: int, seed: int = 1) -> bytes:
    """Return bytes that look like nothing else."""
    return random.Random(seed).randbytes(size)

"""The demo's steps: two calls, one hold, one deadline, and what anybody can verify afterwards."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from cli.client import Client
from cli.demo.narrator import ClaimFailed, Narrator
from cli.demo.proofs import RUN_BYTES, AudioIndex, search, verify_offline
from cli.demo.stage import BYTES_A_SECOND, Call, Stage
from vault import errors
from vault.media import g711
from vault.media.wav import HEADER_BYTES, wav_header
from vault.model import Codec

_COLLEGE: Final = "harrowmere-college"
_SCHOOL: Final = "oakridge-school"
_CALLER: Final = "+442079460123"
_PURPOSE: Final = "complaint"
_PEOPLE: Final = (
    ("recorder", _COLLEGE, "recorder", "switchboard"),
    ("agent", _COLLEGE, "agent", "Robin, admissions"),
    ("first", _COLLEGE, "compliance", "Asha, compliance"),
    ("second", _COLLEGE, "dpo", "Miles, data protection"),
    ("auditor", _COLLEGE, "auditor", "Noor, auditor"),
    ("stranger", _SCHOOL, "agent", "Sam, another school"),
)
_MAX_LAG_BYTES: Final = BYTES_A_SECOND


def as_wav(codes: bytes) -> bytes:
    """Return mu-law stereo as the WAV file that a player gets."""
    samples = g711.decode(Codec.PCMU, codes)
    return wav_header(rate=8000, channels=2, data_bytes=len(samples)) + samples


class Story:
    """All steps in order; each method is one numbered step."""

    def __init__(self, *, stage: Stage, narrator: Narrator, audio: bytes) -> None:
        self._stage = stage
        self._say = narrator
        self._people: dict[str, Client] = {}
        self._tokens: dict[str, str] = {}
        self._index = AudioIndex(audio + audio[: RUN_BYTES - 1])
        # The same conversation from its middle on: other bytes in every place, and still a conversation.
        middle = len(audio) // 4 * 2
        self._held = Call(tenant=_COLLEGE, key="call-a", caller=_CALLER, audio=audio)
        self._other = Call(tenant=_COLLEGE, key="call-b", caller=_CALLER, audio=audio[middle:] + audio[:middle])
        self._a = self._b = self._hold = ""

    async def tell(self) -> None:
        """Run all steps; raises at the first claim that is false."""
        operator = await self._create()
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._stage.server())
            await self._appoint(await stack.enter_async_context(self._stage.client(operator)), stack)
            await self._record()
            await self._play_back()
            await self._keep_out()
            self._look_at_the_disk()
            self._back_up()
            await self._place_hold()
            await self._reach_the_deadline()
            await self._release()
            files = await self._fetch_certificates()
            await self._stop()
        await verify_offline(self._stage, self._say, files)
        await self._restore()

    async def _create(self) -> str:
        self._say.step("Create a vault", "callvault init makes the catalog, the keys and the first operator's token.")
        made = (await self._stage.command("init", "--trial", "--config", str(self._stage.config), "--json")).document()
        self._say.prove(len(made["created"]) > 0, "the vault exists", pieces=len(made["created"]))
        again = await self._stage.command("init", "--trial", "--config", str(self._stage.config))
        self._say.prove(again.code != 0, "a second init refuses to overwrite it", exit_code=again.code)
        token: str = made["operator_token"]
        return token

    async def _appoint(self, operator: Client, stack: AsyncExitStack) -> None:
        self._say.step(
            "Start the server and let people in",
            "Two organisations, and a token for each person and recorder: what a token may do depends on its role.",
        )
        ready = await operator.get("/readyz")
        self._say.prove(ready["status"] == "ready", "the server is ready", address=str(operator.url))
        for identifier, name in ((_COLLEGE, "Harrowmere College"), (_SCHOOL, "Oakridge School")):
            body = {
                "id": identifier,
                "name": name,
                "controller": f"{name} Trust",
                "contact": f"dpo@{identifier}.example",
            }
            await operator.post("/v1/tenants", body)
        other = await self._second_operator(stack)
        for who, tenant, role, name in _PEOPLE:
            issuer = other if role == "dpo" else operator
            issued = await issuer.post("/v1/tokens", {"name": name, "role": role, "tenant": tenant})
            self._tokens[who] = issued["token"]
            self._people[who] = await stack.enter_async_context(self._stage.client(issued["token"]))
        known = await operator.get("/v1/tokens", tenant=_COLLEGE)
        own = sum(tenant == _COLLEGE for _, tenant, _, _ in _PEOPLE)
        self._say.prove(
            len(known["tokens"]) == own and not any("token" in item for item in known["tokens"]),
            "tokens are issued; the server can list them, but not show them again",
            tokens=own,
        )

    async def _second_operator(self, stack: AsyncExitStack) -> Client:
        """Return a client of a second operator, issued from the vault's own files: one alone cannot decide anything."""
        issue = ("tokens", "issue", "--role", "operator", "--name", "Kit, second operator")
        issued = await self._stage.command(*issue, "--config", str(self._stage.config), "--json")
        return await stack.enter_async_context(self._stage.client(issued.document()["token"]))

    async def _record(self) -> None:
        seconds = len(self._held.audio) / BYTES_A_SECOND
        self._say.step(
            "Record two calls while they happen",
            f"Call A and call B stream in at the same time, a tenth of a second at a time, for {seconds:.0f} seconds.",
        )
        recorder = self._people["recorder"]
        async with asyncio.TaskGroup() as group:
            streams = [group.create_task(call.stream(recorder)) for call in (self._held, self._other)]
            await self._say.countdown("both calls are running", seconds / 2)
            self._a, self._b = [await self._listen_in(call) for call in (self._held, self._other)]
            self._search("in the middle of the calls")
            await self._say.countdown("both calls are running", seconds / 2)
        for name, call, stream in (("A", self._held, streams[0]), ("B", self._other, streams[1])):
            receipt = stream.result()
            self._say.prove(
                receipt["sha256"] == hashlib.sha256(call.audio).hexdigest() and receipt["bytes"] == len(call.audio),
                f"call {name} ended: every byte that was sent is durable",
                bytes=receipt["bytes"],
                sha256=f"{receipt['sha256'][:12]}…",
            )

    async def _listen_in(self, call: Call) -> str:
        """Check, during a call, what is durable and that it plays; return the recording's id."""
        sent = call.sent
        recording, durable = await call.durable(self._people["recorder"])
        self._say.prove(
            0 < durable <= call.sent + _MAX_LAG_BYTES and durable >= sent - _MAX_LAG_BYTES,
            f"{call.key}, still running: the server vouches for all but the last second as durable",
            sent=sent,
            durable=durable,
        )
        whole = durable - durable % 2
        span = f"bytes={HEADER_BYTES}-{HEADER_BYTES + 2 * whole - 1}"
        played = await self._people["agent"].audio(recording, purpose=_PURPOSE, span=span)
        self._say.prove(
            played == g711.decode(Codec.PCMU, call.audio[:whole]),
            f"{call.key}, still running: it can be played, and every sample equals what was sent",
            seconds=f"{whole / BYTES_A_SECOND:.1f}",
        )
        return recording

    async def _play_back(self) -> None:
        self._say.step("Play them back", "Stored in pieces, each sealed with AES-256-GCM; played as one WAV file.")
        agent = self._people["agent"]
        for call, recording in ((self._held, self._a), (self._other, self._b)):
            await self._say.wait(
                "the last piece reaches the object store", partial(self._is, recording, "sealed"), limit_seconds=10
            )
            played = await agent.audio(recording, purpose=_PURPOSE)
            self._say.prove(played == as_wav(call.audio), f"{call.key} plays, byte for byte", wav_bytes=len(played))
        shown = await agent.get(f"/v1/recordings/{self._a}")
        self._say.prove(shown["call"]["caller"] == _CALLER, "who called is known to those who may know")

    async def _is(self, recording: str, state: str) -> bool:
        found = await self._people["agent"].get(f"/v1/recordings/{recording}")
        return bool(found["state"] == state)

    async def _keep_out(self) -> None:
        self._say.step("Keep others out", "A token reaches one organisation and does what its role allows, no more.")
        stranger, recorder = self._people["stranger"], self._people["recorder"]
        await self._say.refused(
            stranger.audio(self._a, purpose=_PURPOSE),
            errors.NotFound,
            "for another school's agent, the recording does not exist",
            status=404,
        )
        await self._say.refused(
            recorder.audio(self._a, purpose=_PURPOSE),
            errors.Forbidden,
            "the recorder that sent the call cannot play it",
            status=403,
        )
        await self._say.refused(
            self._people["agent"].audio(self._a, purpose="curiosity"),
            errors.Invalid,
            "nobody plays without a purpose the organisation knows",
            status=422,
        )

    def _look_at_the_disk(self) -> None:
        self._say.step(
            "Look at the disk",
            f"Every file of the vault is searched for any {RUN_BYTES} bytes of the calls, and for the caller's number.",
        )
        control = self._stage.directory / "control"
        control.mkdir()
        (control / "unprotected.ulaw").write_bytes(b"padding" + self._held.audio[: 4 * BYTES_A_SECOND] + b"padding")
        seen = search(control, self._index)
        self._say.prove(bool(seen.found), "the search works: in an unprotected copy, made for this, it finds the call")
        self._search("at rest")

    def _search(self, when: str) -> None:
        number = _CALLER.encode()
        seen = search(self._stage.data, self._index, words=(number, number.removeprefix(b"+44")))
        if seen.found:
            raise ClaimFailed(f"audio or a number was found on disk {when}", places="; ".join(seen.found[:3]))
        self._say.prove(
            seen.files > 0 and seen.bytes > 0,
            f"{when}, no file of the vault holds any of the audio or the caller's number",
            files=seen.files,
            bytes=seen.bytes,
        )

    def _back_up(self) -> None:
        self._say.step(
            "Take a backup",
            "As every night: the catalog and all sealed objects, with both calls in it. It comes back at the end.",
        )
        size = self._stage.back_up()
        self._say.prove(size > 2 * len(self._held.audio), "both calls are in the backup, sealed", object_bytes=size)

    async def _place_hold(self) -> None:
        self._say.step(
            "A lawyer writes: keep call A",
            "A legal hold keeps a recording whatever its retention says. It pins the key itself; it is not a flag.",
        )
        body = {
            "kind": "legal",
            "matter": "DEMO-2026",
            "reason": "letter before claim",
            "authority": "Head of Legal",
            "owner": "Asha, compliance",
            "review_at": f"{datetime.now(UTC).year + 1}-01-31T00:00:00Z",
            "recordings": [self._a],
        }
        placed = await self._people["first"].post("/v1/holds", body)
        self._hold = placed["id"]
        held = [item["id"] for item in placed["recordings"] if item["outcome"] == "held"]
        self._say.prove(held == [self._a], "call A is held", hold=self._hold, state=placed["state"])

    async def _reach_the_deadline(self) -> None:
        self._say.step(
            "The retention runs out",
            "Call B has no hold: the next sweep destroys its key; without it, sealed audio is noise.",
        )
        first = self._people["first"]
        due = max([await self._due(recording) for recording in (self._a, self._b)])
        await self._say.countdown("until retention ends", (due - datetime.now(UTC)).total_seconds())
        await self._say.wait("the sweep takes call B", lambda: self._is(self._b, "shredded"), limit_seconds=30)
        refusal = await self._say.refused(
            first.audio(self._b, purpose=_PURPOSE),
            errors.Shredded,
            "call B is gone: its key no longer exists",
            status=410,
        )
        certificate = refusal.facts.get("certificate_id")
        self._say.prove(bool(certificate), "the refusal names the deletion certificate", certificate=str(certificate))
        played = await first.audio(self._a, purpose=_PURPOSE)
        self._say.prove(
            played == as_wav(self._held.audio) and datetime.now(UTC) > due,
            "call A is past its retention too, and still plays, byte for byte: the hold kept it",
        )
        reason = (await first.get(f"/v1/recordings/{self._a}/why"))["rules"][-1]["text"]
        self._say.prove(self._hold in reason, "asked why, the vault names the hold", answer=reason)

    async def _due(self, recording: str) -> datetime:
        found = await self._people["agent"].get(f"/v1/recordings/{recording}")
        return datetime.fromisoformat(found["retain_until"])

    async def _release(self) -> None:
        self._say.step("Two people release the hold", "One asks, another approves; nobody can do both.")
        first, second = self._people["first"], self._people["second"]
        path = f"/v1/holds/{self._hold}"
        asked = await first.post(f"{path}/release", {"reason": "claim settled"})
        self._say.prove(asked["state"] == "release_requested", "the first person asks; the hold still keeps")
        await self._say.refused(
            first.post(f"{path}/approve", {"approve": True, "shown": asked["shown"]}),
            errors.Forbidden,
            "the first person cannot approve their own request",
            status=403,
        )
        seen = await second.get(path)
        approved = await second.post(f"{path}/approve", {"approve": True, "shown": seen["shown"]})
        self._say.prove(
            approved["state"] == "released", "the second person approves", keeps_until=approved["grace_until"]
        )
        await self._say.wait(
            "the grace period, then the sweep", lambda: self._is(self._a, "shredded"), limit_seconds=30
        )
        await self._say.refused(
            first.audio(self._a, purpose=_PURPOSE), errors.Shredded, "now call A is gone too", status=410
        )

    async def _fetch_certificates(self) -> dict[str, str]:
        """Write both final certificates to files; return the file of each recording."""
        self._say.step(
            "Fetch the deletion certificates",
            "The first says the key is gone; the final one, that every stored object was seen to be gone as well.",
        )
        files: dict[str, str] = {}
        for call, recording in ((self._held, self._a), (self._other, self._b)):
            final = partial(self._final, recording)
            await self._say.wait("the objects' absence is verified", final, limit_seconds=30)
            certificate = await self._certificate(recording)
            path = self._stage.directory / f"{call.key}.jws"
            path.write_text(certificate["jws"])
            files[recording] = str(path)
            self._say.prove(
                certificate["status"] == "final", f"{call.key} has its final certificate", certificate=certificate["id"]
            )
        return files

    async def _certificate(self, recording: str) -> dict[str, Any]:
        """Return the recording's newest certificate."""
        page = await self._people["auditor"].get("/v1/certificates", recording=recording, limit=1)
        newest: dict[str, Any] = page["certificates"][0]
        return newest

    async def _final(self, recording: str) -> bool:
        return bool((await self._certificate(recording))["status"] == "final")

    async def _stop(self) -> None:
        self._say.step("Stop the server", "What follows needs nothing but the certificates and a public key.")
        code = await self._stage.stop()
        self._say.prove(code == 0, "the server ended in good order", signal="SIGTERM", exit_code=code)

    async def _restore(self) -> None:
        self._say.step(
            "Try to bring the calls back",
            "The backup from before the deletion is restored: its catalog knows both calls, and their audio is there.",
        )
        self._stage.restore()
        async with self._stage.server(), self._stage.client(self._tokens["first"]) as first:
            for call, recording in ((self._held, self._a), (self._other, self._b)):
                known = await first.get(f"/v1/recordings/{recording}")
                self._say.prove(
                    known["bytes"] == len(call.audio), f"{call.key} is back in the catalog", state=known["state"]
                )
                await self._say.refused(
                    first.audio(recording, purpose=_PURPOSE),
                    errors.Shredded,
                    f"{call.key} stays gone: its sealed audio came back, its key did not",
                    status=410,
                )
            await self._stage.stop()

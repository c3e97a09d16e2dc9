"""What a stranger's ids cost and tell: the time of another tenant's id beside that of no id, and what denials write.

`python -m benchmarks.not_yours [--requests 2000] [--denied 20000]`. Foreign and unknown ids take turns over one
connection. A scan of fresh ids, twenty at once, follows: denials a second, and what the catalog grows by.
"""

import argparse
import asyncio
import statistics
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp

from benchmarks.common import report, run, served_vault

AT_ONCE = 20
OURS, THEIRS = "bench", "other"
PCMU = "audio/PCMU;rate=8000;channels=1"
TUS = {"Tus-Resumable": "1.0.0"}


async def post(session, path, token, body):
    async with session.post(path, json=body, headers={"Authorization": f"Bearer {token}"}) as answer:
        assert answer.status < 300, await answer.text()
        return await answer.json()


async def issue(session, operator, role, tenant):
    return (await post(session, "/v1/tokens", operator, {"name": role, "role": role, "tenant": tenant}))["token"]


def hold_of(recording):
    words = {"matter": "M", "reason": "r", "authority": "a", "owner": "o"}
    until = (datetime.now(UTC) + timedelta(days=100)).isoformat()
    return {"kind": "legal", **words, "review_at": until, "recordings": [recording]}


def erasure_of(recording):
    return {"basis": "art17", "case_reference": "C", "recordings": [recording], "queue": True}


async def foreign_things(session, operator):
    """Give the other tenant one of each kind and return their ids."""
    recorder, compliance, dpo = [
        await issue(session, operator, each, THEIRS) for each in ("recorder", "compliance", "dpo")
    ]
    headers = {"Authorization": f"Bearer {recorder}", "Content-Type": PCMU}
    async with session.put(f"/v1/ingest/{THEIRS}/call", data=b"\x55" * 8000, headers=headers) as answer:
        recording = (await answer.json())["recording_id"]
    made = {
        "Authorization": f"Bearer {recorder}",
        **TUS,
        "Upload-Length": "500",
        "Upload-Metadata": "filetype YXVkaW8vd2F2",
    }
    async with session.post(f"/v1/ingest/{THEIRS}/tus", headers=made) as answer:
        upload = answer.headers["Location"].rpartition("/")[2]
    return {
        "recording": recording,
        "upload": upload,
        "hold": (await post(session, "/v1/holds", compliance, hold_of(recording)))["id"],
        "erasure": (await post(session, "/v1/erasures", compliance, erasure_of(recording)))["id"],
        "policy": (await post(session, "/v1/policies", dpo, {"metadata_retention": "800d"}))["id"],
    }


ROUTES = {
    "show": ("GET", "/v1/recordings/{recording}", "compliance", None),
    "why": ("GET", "/v1/recordings/{recording}/why", "compliance", None),
    "audio": ("GET", "/v1/recordings/{recording}/audio", "compliance", None),
    "flag": ("POST", "/v1/recordings/{recording}/flag", "agent", lambda _: {"category": "other"}),
    "hold": ("GET", "/v1/holds/{hold}", "compliance", None),
    "place hold": ("POST", "/v1/holds", "compliance", lambda ids: hold_of(ids["recording"])),
    "erasure": ("GET", "/v1/erasures/{erasure}", "compliance", None),
    "ask erasure": ("POST", "/v1/erasures", "compliance", lambda ids: erasure_of(ids["recording"])),
    "policy": ("GET", "/v1/policies/{policy}", "dpo", None),
    "live upload": ("HEAD", "/v1/ingest/bench/tus/{upload}", "recorder", None),
    "tenant": ("PUT", "/v1/ingest/{tenant}/call", "recorder", None),
}


async def timed(session, route, token, ids):
    method, path, _, body = route
    headers = {"Authorization": f"Bearer {token}", "Purpose": "quality", **TUS}
    began = time.perf_counter()
    async with session.request(
        method, path.format(**ids), headers=headers, json=None if body is None else body(ids)
    ) as answer:
        await answer.read()
        took = time.perf_counter() - began
        assert answer.status == 404, (path, answer.status, await answer.text())
    return took


async def compare(session, tokens, foreign, requests):
    """Return, by route, the median of foreign and unknown ids in milliseconds and their ratio."""
    none = {kind: f"{identifier.partition('_')[0]}_{'0123456789abcdef' * 2}" for kind, identifier in foreign.items()}
    foreign, none = {**foreign, "tenant": THEIRS}, {**none, "tenant": "nowhere"}
    found = {}
    for name, route in ROUTES.items():
        times = {"foreign": [], "unknown": []}
        pair = [("foreign", foreign), ("unknown", none)]
        for _ in range(requests):
            for kind, ids in pair:
                times[kind].append(await timed(session, route, tokens[route[2]], ids))
            pair.reverse()
        medians = {kind: round(1000 * statistics.median(each), 3) for kind, each in times.items()}
        found[name] = {**medians, "ratio": round(medians["foreign"] / medians["unknown"], 3)}
    return found


async def scan(session, token, denied):
    """Ask for as many fresh ids, some at once; return the seconds that took."""
    numbers = iter(range(denied))

    async def ask():
        for number in numbers:
            path = f"/v1/recordings/rec_{number:032x}"
            async with session.get(path, headers={"Authorization": f"Bearer {token}"}) as answer:
                assert answer.status == 404

    began = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
    return time.perf_counter() - began


async def trail(session, operator):
    """Return how many denials are in the audit trail."""
    headers, after, count = {"Authorization": f"Bearer {operator}"}, 0, 0
    while True:
        async with session.get(f"/v1/audit?after={after}&limit=1000", headers=headers) as answer:
            page = await answer.json()
        count += sum(entry["event"] == "access.denied" for entry in page["entries"])
        if page["after"] == after:
            return count
        after = page["after"]


def catalog_bytes(process):
    config = Path(process.args[process.args.index("--config") + 1])
    return sum(each.stat().st_size for each in config.parent.rglob("catalog.db*"))


async def main(arguments):
    with served_vault() as (process, url, operator):
        async with aiohttp.ClientSession(url) as session:
            for tenant in (OURS, THEIRS):
                words = {"name": "Bench", "controller": "Bench", "contact": "bench@example.org"}
                await post(session, "/v1/tenants", operator, {"id": tenant, **words})
            roles = ("compliance", "agent", "dpo", "recorder")
            tokens = {role: await issue(session, operator, role, OURS) for role in roles}
            foreign = await foreign_things(session, operator)
            routes = await compare(session, tokens, foreign, arguments.requests)
            worst = max((each["ratio"] for each in routes.values()), key=lambda ratio: abs(ratio - 1))
            report("not_yours", requests=arguments.requests, milliseconds=routes, furthest_ratio=worst)
            entries, size = await trail(session, operator), catalog_bytes(process)
            seconds = await scan(session, tokens["agent"], arguments.denied)
            report(
                "denials",
                denied=arguments.denied,
                a_second=round(arguments.denied / seconds),
                entries=await trail(session, operator) - entries,
                catalog_bytes_a_request=round((catalog_bytes(process) - size) / arguments.denied, 2),
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--denied", type=int, default=20_000)
    run(main(parser.parse_args()))

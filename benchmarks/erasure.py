"""One erasure among N live recordings: milliseconds until its keys are gone, and until that is certified.

`python -m benchmarks.erasure [--recordings 10000 1000000]`. The rows are written straight into the catalog; the
keyring, the erasure and its certificates are the real ones. The wait for other approvals is left out.
"""

import argparse
import statistics
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from benchmarks.common import report, run
from benchmarks.shred import OPERATOR, multiply, one_recording
from vault.access.two_people import shown_digest
from vault.config import parse_config
from vault.ids import TenantId
from vault.model import Role
from vault.ports.erasures import ErasureBasis
from vault.retention.periods import Period
from vault.services.deletion.erasures import ErasureRequest, erasure_document
from vault.wiring import init_vault, open_vault

ROUNDS = 7
OBJECTS = 2
"""Of each recording, its manifest among them."""
TENANT = TenantId("bench")


async def person(vault, name, role):
    """Issue a token to somebody who decides, as an operator of their own, and let it in."""
    _, secret = await vault.access.issue(name=f"operator of {name}", role=Role.OPERATOR, tenant=None, actor=None)
    issuer = await vault.access.authenticate(secret)
    _, secret = await vault.access.issue(name=name, role=role, tenant=TENANT, actor=issuer)
    return await vault.access.authenticate(secret)


async def erase(vault, recording, ann, bob):
    """Erase one recording, which two people decide; returns the seconds until it had no key, and until certified."""
    request = ErasureRequest(
        tenant=TENANT, basis=ErasureBasis.ART17, case_reference="bench", recordings=(recording.id,)
    )
    asked = await vault.erasures.request(request, actor=ann)
    account, gone = vault.erasures._shredder.account, 0.0
    began = time.perf_counter()

    async def noting(shred, receipt):
        nonlocal gone
        gone = time.perf_counter() - began
        return await account(shred, receipt)

    vault.erasures._shredder.account = noting
    done = await vault.erasures.approve(asked.erasure.id, shown=shown_digest(erasure_document(asked)), actor=bob)
    certified = time.perf_counter() - began
    vault.erasures._shredder.account = account
    assert done.erasure.state == "done"
    assert not vault.keyring.derivable(recording.audio)
    return gone, certified


async def measure(recordings):
    with tempfile.TemporaryDirectory(prefix="callvault-bench-") as directory:
        document = {
            "journal": {"disk_reserve": "64MiB"},
            "retention": {"erasure_window": "0s"},
            "sweep": {"enabled": False},
        }
        config = parse_config(document, base=Path(directory))
        await init_vault(config, trial=True)
        async with open_vault(config) as vault:
            await vault.tenants.add(
                identifier=TENANT,
                name="Bench",
                controller="Bench",
                contact="bench@example.org",
                retention=Period(timedelta(days=30)),
                actor=OPERATOR,
            )
            first = await one_recording(vault, TENANT)
        await multiply(config.catalog_path, recordings - 1, OBJECTS)
        async with open_vault(config) as vault:
            wanted = [await one_recording(vault, TENANT, key=f"wanted-{number}") for number in range(ROUNDS)]
            people = [await person(vault, name, role) for name, role in (("ann", Role.COMPLIANCE), ("bob", Role.DPO))]
            times = [await erase(vault, each, *people) for each in wanted]
            assert vault.keyring.derivable(first.audio)
        gone, certified = (round(1000 * statistics.median(each), 1) for each in zip(*times, strict=True))
        report("erasure", recordings=recordings, rounds=ROUNDS, milliseconds_until_gone=gone, and_certified=certified)


async def main(arguments):
    for recordings in arguments.recordings:
        await measure(recordings)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, nargs="+", default=[10_000, 1_000_000])
    run(main(parser.parse_args()))

"""Benchmarks are run by hand and seldom: each still has to run with the vault as it is, here over next to nothing."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from tests.helpers import soak

pytestmark = pytest.mark.soak

ROOT = Path(__file__).parents[2]
SMALL = {
    "erasure": "--recordings 10",
    "ingest": "--uploads 2 --megabytes 1",
    "kept": "--recordings 20 --tenants 2",
    "keyring_size": "--up-to 10000",
    "live": "--calls 2 --seconds 1",
    "not_yours": "--requests 2 --denied 20",
    "provider_ops": "--sweeps 2 --erasures 1 --holds 1 --restarts 1 --calls 1",
    "scale": "--recordings 500 --holds 1 5 --objects",
    "shred": "--recordings 20",
    "startup": "--runs 1",
    "upgrade": "--recordings 500 --kills 1",
    "websocket": "--calls 2 --seconds 1",
}


async def test_each_benchmark_of_the_vault_runs_and_prints_its_figures():
    for name in soak.sample(sorted(SMALL), 1, of="benchmarks"):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", f"benchmarks.{name}", *SMALL[name].split()),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode == 0, (name, err.decode()[-2000:])
        printed = [json.loads(line) for line in out.splitlines()]
        assert printed[0]["benchmark"] == name
        assert all(each.get("shredded", 1) for each in printed), "a sweep of nothing was measured"

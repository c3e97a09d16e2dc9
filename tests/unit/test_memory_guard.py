"""Where keys in memory can end up: what `doctor` says, and what a guarded process really has."""

import json
import resource
import subprocess
import sys

import pytest

from vault.wiring.open import may_lock, memory_findings

SWAPPING = "Filename Type Size Used Priority\n/dev/sda2 partition 1000 0 -2\n"
GUARDED = """
import ctypes, json, os, resource
from pathlib import Path
from vault.wiring.open import guard_memory, may_lock
guard_memory()
lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(json.dumps({
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "dumpable": ctypes.CDLL(None).prctl(3, 0, 0, 0, 0),
    "permitted": may_lock(),
    "locked": lines["VmLck"].split()[0],
}))
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (8192, 8192))

    def describe(*, capabilities, swaps):
        status, places = tmp_path / "status", tmp_path / "swaps"
        status.write_text(f"Name:\tx\nCapEff:\t{capabilities:016x}\n")
        places.write_text(swaps)
        return {"status": status, "swaps": places}

    return describe


def test_swap_without_locked_memory_is_a_warning_with_a_remedy(machine):
    (finding,) = memory_findings(**machine(capabilities=0, swaps=SWAPPING))
    assert finding.level == "warning"
    assert "swap" in finding.hint


@pytest.mark.parametrize(("capabilities", "swaps"), [(1 << 14, SWAPPING), (0, SWAPPING.splitlines()[0])])
def test_no_swap_or_permission_to_lock_is_fine(machine, capabilities, swaps):
    assert [finding.level for finding in memory_findings(**machine(capabilities=capabilities, swaps=swaps))] == ["ok"]


def test_a_process_whose_capabilities_cannot_be_read_does_not_lock(machine, tmp_path):
    assert not may_lock(status=tmp_path / "absent")


def test_a_guarded_process_dumps_no_core_and_locks_what_it_may():
    done = subprocess.run([sys.executable, "-c", GUARDED], capture_output=True, text=True, timeout=60, check=True)
    found = json.loads(done.stdout)
    assert found["core"] == [0, 0]
    assert found["dumpable"] == 0
    assert (found["locked"] != "0") == found["permitted"]

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.xdist_group("demo")
def test_the_demo_proves_every_claim(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "cli", "demo", "--json"],
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    done = lines[-1]
    proven = [line for line in lines if line["event"] == "proven"]
    assert done["event"] == "done"
    assert done["claims"] == len(proven) >= 30
    steps = [line["step"] for line in lines if line["event"] == "step"]
    assert steps == list(range(1, done["steps"] + 1))
    # Every step but those that only set the scene proves something.
    assert {line["step"] for line in proven} == set(steps)
    assert "cv_" not in ended.stdout + ended.stderr
    assert list(tmp_path.iterdir()) == []

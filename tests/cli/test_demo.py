import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.soak import SOAK

DOCUMENT = Path(__file__).parents[2] / "docs" / "demo.md"
SHORT = """
from cli.demo import stage
from cli.main import run
whole = stage.sample_call()
stage.sample_call = lambda: whole[: 5 * stage.BYTES_A_SECOND]
run()
"""
"""The command with the first five seconds of its call of eighteen."""
NAMED_ANEW = r"\b[0-9a-f]{32}\b|\b[0-9a-f]{12}…|\b\d+\b"


def said(answer: str | None) -> str:
    return "" if answer is None else f"\n{answer}"


def without_names(text: str) -> str:
    return re.sub(NAMED_ANEW, "…", text.replace("rec_", "").replace("hold_", ""))


@pytest.mark.soak
@pytest.mark.xdist_group("demo")
def test_the_demo_proves_every_claim(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-P", *(("-m", "cli") if SOAK else ("-c", SHORT)), "demo", "--json"],
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
    told = [f"✓ {line['claim']}" + said(line["evidence"].get("answer")) for line in proven]
    printed = [line.strip() for line in DOCUMENT.read_text().splitlines() if line.strip().startswith("✓")]
    assert len(printed) == len(told)
    for line, each in zip(printed, told, strict=True):
        claim, _, answer = each.partition("\n")
        assert without_names(line).startswith(without_names(claim)), "docs/demo.md is not what the demo prints"
        assert without_names(answer) in without_names(line), "docs/demo.md is not what the demo prints"
    assert "cv_" not in ended.stdout + ended.stderr
    assert list(tmp_path.iterdir()) == []

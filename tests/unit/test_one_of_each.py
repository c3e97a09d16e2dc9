"""What the product does in one way only is written in one module only."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ONLY_IN = {
    r"\.leaf <= ": {"vault/model.py"},  # whether a pin is on a place
    r"\bflock\(": {"vault/disk.py"},
    r"\b(ENOSPC|EDQUOT)\b": {"vault/disk.py"},
    # A thread hop; the journal has its own thread, and the proof its own processes.
    r"\bto_thread\b|\brun_in_executor\(": {
        "vault/threads.py",
        "vault/storage/journal/commit.py",
        "vault/services/proof/attack.py",
    },
    r"\bmkstemp\(": {"vault/storage/spool.py"},  # a file without a name
    # Instants in answers, logs and messages; what is signed; what is stored beside objects; a day; what clients send.
    r"\.isoformat\(": {
        "vault/certificates/canonical.py",
        "vault/certificates/template.py",
        "vault/storage/objects/names.py",
        "cli/archives/plan.py",
        "cli/archives/tables.py",
        "cli/arguments.py",
    },
}


def test_what_there_is_one_of_is_written_in_one_module():
    sources = {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for folder in ("vault", "cli")
        for path in sorted((ROOT / folder).rglob("*.py"))
    }
    for pattern, allowed in ONLY_IN.items():
        found = {name for name, text in sources.items() if re.search(pattern, text)}
        assert found == allowed, pattern

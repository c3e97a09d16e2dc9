"""Run every benchmark: `python -m benchmarks`. One JSON line each; see README.md beside this file."""

import subprocess
import sys

NAMES = (
    "seal",
    "journal",
    "ingest",
    "live",
    "websocket",
    "shred",
    "kept",
    "erasure",
    "keyring_size",
    "provider_ops",
    "http_peers",
    "tus_peer",
    "not_yours",
    "upgrade",
    "startup",
)

if __name__ == "__main__":
    for name in NAMES:
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)

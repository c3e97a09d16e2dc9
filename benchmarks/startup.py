"""CPU seconds until the command has said its version, and until it has completed a name: the median of some runs.

`python -m benchmarks.startup [--runs 15] [--config FILE]`. Beside it, the same interpreter that imports nothing, and
the library that parses the command line alone. Then seconds, and CPU seconds, from the start of `callvault serve` to
the first 200 of `/readyz`: on a new vault, or on that of a file.
"""

import argparse
import contextlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from benchmarks.common import CONFIG, ROOT, child, cpu_seconds, report

RUN = "from cli.main import run; run()"


def complete(*words):
    """Return what a shell sets when it asks what may come after `words`."""
    return {
        "_CALLVAULT_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(["callvault", *words, ""]),
        "COMP_CWORD": str(len(words) + 1),
    }


def spent(code, arguments=(), environment=None):
    """User and system seconds of one run of the interpreter."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.DEVNULL,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def ready(config, environment):
    """Return the seconds until a server of this vault is ready, and the CPU seconds until then."""
    port_file = config.parent / "port"
    port_file.unlink(missing_ok=True)
    serve = [sys.executable, "-m", "cli", "serve", "--config", str(config), "--port-file", str(port_file)]
    command = ["env", *(f"{name}={value}" for name, value in environment.items()), *serve]
    began = time.perf_counter()
    with child(command, port_file, core=None) as (process, port):
        while True:
            with contextlib.suppress(urllib.error.HTTPError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz").close()
                return time.perf_counter() - began, cpu_seconds(process.pid)
            time.sleep(0.005)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--config", type=Path)
    chosen = parser.parse_args()
    runs = chosen.runs
    cases = {
        "interpreter_s": ("pass", (), None),
        "typer_s": ("import typer.main", (), None),
        "version_s": (RUN, ("--version",), None),
        "complete_command_s": (RUN, (), complete()),
        "complete_subcommand_s": (RUN, (), complete("recordings")),
    }
    with tempfile.TemporaryDirectory() as compiled:
        # As installed: what is imported was compiled before. The first run does that, and does not count.
        ours = {"PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""}
        figures = {}
        for name, (code, arguments, environment) in cases.items():
            taken = [spent(code, arguments, {**ours, **(environment or {})}) for _ in range(runs + 1)][1:]
            figures[name] = round(statistics.median(taken), 3)
        config = chosen.config
        if config is None:
            config = Path(compiled) / "config.toml"
            config.write_text(CONFIG)
            init = [sys.executable, "-m", "cli", "init", "--trial", "--config", str(config)]
            subprocess.run(init, cwd=ROOT, capture_output=True, check=True)
        served = [ready(config, ours) for _ in range(runs + 1)][1:]
        for name, taken in zip(("ready_s", "ready_cpu_s"), zip(*served, strict=True), strict=True):
            figures[name] = round(statistics.median(taken), 3)
    report("startup", runs=runs, **figures)


if __name__ == "__main__":
    main()

"""CPU seconds until the command has said its version, and until it has completed a name: the median of some runs.

`python -m benchmarks.startup [--runs 15]`. Beside it, the same interpreter that imports nothing, and the
library that parses the command line alone.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile

from benchmarks.common import ROOT, report

RUN = "from cli.main import run; run()"


def complete(*words):
    """Return what a shell sets when it asks what may come after `words`."""
    return {
        "_CALLVAULT_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(["callvault", *words, ""]),
        "COMP_CWORD": str(len(words) + 1),
    }


def cpu_seconds(code, arguments=(), environment=None):
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


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
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
            taken = [cpu_seconds(code, arguments, {**ours, **(environment or {})}) for _ in range(runs + 1)][1:]
            figures[name] = round(statistics.median(taken), 3)
    report("startup", runs=runs, **figures)


if __name__ == "__main__":
    main()

import json
import os
import subprocess
import sys

from tests.helpers.authorities import Authority

HEAVY = {"aiohttp", "yarl", "rich", "pydantic", "cryptography", "sqlalchemy", "alembic", "minio"} | {
    "aioboto3", "botocore", "uvloop", "phonenumbers", "prometheus_client", "msgpack", "vault.config", "vault.wiring"
}  # fmt: skip
LITTLE = {"cli.exit_codes", "cli.lazy_commands", "cli.main", "cli.output", "vault.errors", "vault.places"}
CODE = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))
from cli.main import run
run()
"""


def imported(*arguments: str, completing: str | None = None) -> tuple[str, set[str]]:
    """Run the command in a process of its own: what it printed, and the modules that it has then."""
    asked = {} if completing is None else {
        "_CALLVAULT_COMPLETE": "complete_bash",
        "COMP_WORDS": f"callvault {completing}",
        "COMP_CWORD": str(len(completing.split(" "))),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        capture_output=True, text=True, check=True, env={**os.environ, **asked},
    )  # fmt: skip
    return done.stdout, set(json.loads(done.stderr.splitlines()[-1]))


def test_the_version_is_said_without_reading_any_command() -> None:
    said, modules = imported("--version")
    assert said.startswith("callvault ")
    assert modules & HEAVY == set()
    assert {module for module in modules if module.startswith(("cli.", "vault."))} == LITTLE


def test_completing_a_command_reads_none() -> None:
    said, modules = imported(completing="re")
    assert said.split() == ["recordings", "recorders"]
    assert imported(completing="--ver")[0].split() == ["--version"]
    assert {module for module in modules if module.startswith(("cli.", "vault."))} <= LITTLE


def test_completing_a_subcommand_reads_nothing_that_only_running_it_needs() -> None:
    said, modules = imported(completing="recordings ")
    assert {"list", "play"} <= set(said.split())
    assert modules & HEAVY == set()


def test_an_option_is_completed_too() -> None:
    said, modules = imported(completing="recordings list --st")
    assert "--state" in said.split()
    assert modules & HEAVY <= {"pydantic"}, "with it the parser of command lines reads values"


def test_serving_a_vault_of_files_reads_no_library_of_another_place() -> None:
    code = "import json, sys, cli.serve, vault.server.app, vault.wiring; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"aioboto3", "aiobotocore", "alembic", "asyncpg", "awscrt", "botocore", "minio", "pkcs11"}
    restored = {"vault.services.backup.reconcile"}
    assert (heavy | restored) & set(json.loads(done.stdout)) == set()


def test_the_http_library_is_loaded_without_reading_the_machines_authorities(tmp_path) -> None:
    """They are read when a connection is made, so the process itself goes on with them."""
    code = (
        "import os, cli.serve; before = dict(os.environ); cli.serve._load_http(); assert dict(os.environ) == before; "
        "import aiohttp.connector as c; print(c._make_ssl_context(True).cert_store_stats()['x509'], "
        "c._SSL_CONTEXT_VERIFIED.cert_store_stats()['x509'])"
    )
    there = {**os.environ, "SSL_CERT_FILE": str(Authority(tmp_path).file)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=there)
    assert done.stdout.split() == ["1", "0"]

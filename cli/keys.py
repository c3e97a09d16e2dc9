"""`callvault keys`: the keyring, its replicas and its root version."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.command import DEFAULT_CONFIG, ConfigPath, Remote, load_config, local, new_group, remote
from cli.doctor import report
from cli.output import Output

group = new_group("The keyring: what every recording's key is derived from.")


@remote(group, "status", examples=["callvault keys status", "callvault keys status --json"])
async def status(call: Remote) -> None:
    """Show the live epoch, its root-key provider, and the replicas that have it."""
    found = await call.client.get("/v1/keys")
    call.out.show(
        found,
        [
            ("epoch", found["epoch"]),
            ("provider", f"{found['provider']} ({found['assurance']})"),
            ("lease", f"{found['lease_seconds']:g} s"),
            ("last sweep", found["last_sweep_at"]),
            ("vault", "trial: recordings may end early, and certificates say so" if found["trial"] else "in earnest"),
            ("tenants", found["tenants"]),
            ("cohorts", found["cohorts"]),
            ("pins", found["pins"]),
            ("writes need", f"{found['write_quorum']} of {len(found['replicas'])} replicas"),
        ],
    )
    if not call.out.as_json:
        rows = [(item["name"], "ok" if item["ok"] else "error", item["detail"]) for item in found["replicas"]]
        call.out.table(["replica", "state", "detail"], rows, empty="there are no replicas", sentence=True)


@local(group, "verify", examples=["callvault keys verify", "callvault keys verify --json"])
async def verify(out: Output, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Open each replica, compare their trees, and list the root versions; a server may be running.

    It exits with 5 unless every replica opens to the same tree and only one root version is live.
    """
    from vault.wiring.doctor import verify_keyring  # noqa: PLC0415 - loads storage drivers; most commands need none

    report(out, list(await verify_keyring(load_config(config))), said_by="keys verify")


@remote(group, "rotate", examples=["callvault keys rotate"])
async def rotate(call: Remote) -> None:
    """Replace the root version, destroy the old one, and use new keys for all coming calls.

    Every recording stays readable. An older copy of the root keys and the keyring opens no recording that begins after
    this. Calls under way continue under their old keys. With another provider configured, this step moves the vault to
    it.
    """
    done = await call.client.post("/v1/keys/rotate", {})
    call.out.show(
        done,
        [
            ("epoch destroyed", done["epoch_destroyed"]),
            ("epoch live", done["epoch_live"]),
            ("provider", f"{done['provider']} ({done['assurance']})"),
            ("replicas written", done["replicas"]),
            ("old copies useless since", done["unrecoverable_at"]),
            ("caches clear at", done["caches_clear_at"]),
            ("generation of new calls", done["generation"]),
            ("unused trees dropped", done["trees_dropped"]),
            ("calls under way, older keys", done["calls_under_way"]),
        ],
    )


@local(
    group,
    "repair",
    examples=["callvault keys repair /var/lib/callvault/keyring-b", "callvault keys repair s3://bucket/keyring"],
)
async def repair(
    out: Output,
    replica: Annotated[str, typer.Argument(help="The replica, as in config.toml.", show_default=False)],
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """Rebuild one lost keyring replica from the others; the server may keep running."""
    from vault.wiring.doctor import repair_replica  # noqa: PLC0415 - loads storage drivers; most commands need none

    name = _name(replica)
    await repair_replica(load_config(config), name)
    out.show({"repaired": name}, [("repaired", name)])


@local(group, "prepare", examples=["callvault keys prepare --config /etc/callvault/config.toml"])
async def prepare(out: Output, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Create the store of [keyring.root] for a vault that moves there from [keyring.previous_root].

    It proves that all needed permissions exist: it makes, uses and destroys a root version. The vault does not move
    yet: restart the server with both sections, then rotate. docs/providers.md has all steps.
    """
    from vault.wiring import prepare_root_keys  # noqa: PLC0415 - loads storage drivers; most commands need none

    made = await prepare_root_keys(load_config(config))
    out.show({"prepared": made}, [("prepared", made)])


def _name(replica: str) -> str:
    from vault.config import S3_SCHEME  # noqa: PLC0415 - a command imports what it needs when it runs

    return replica if replica.startswith(S3_SCHEME) else str(Path(replica).absolute())

"""`callvault catalog`: upgrading the catalog's schema."""

from __future__ import annotations

from cli.command import DEFAULT_CONFIG, ConfigPath, load_config, local, new_group
from cli.output import Output

group = new_group("The catalog: the database of all recordings.")


@local(group, "upgrade", examples=["callvault catalog upgrade --config /etc/callvault/config.toml"])
async def upgrade(out: Output, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Upgrade the catalog's schema to this version's, in steps that each take effect.

    Stop every node and back the catalog up first: an older version refuses the new schema. If the upgrade is
    interrupted, run it again: it continues with the next step.
    """
    from vault.wiring.journals import upgrade_catalog  # noqa: PLC0415 - loads storage drivers; most commands need none

    with out.watch() as watch:
        changed = await upgrade_catalog(load_config(config), progress=watch)
    out.show({"upgraded": changed}, [("catalog", "upgraded" if changed else "is up to date")])


@local(group, "recount", examples=["callvault catalog recount --config /etc/callvault/config.toml"])
async def recount(out: Output, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Count the recordings of each tenant, state and day again, if `callvault doctor` finds the counts wrong.

    The least and greatest size and duration of each day's calls are read again, too.

    A server may run meanwhile. Its writes wait until the counting is done, about a second for a million recordings.
    """
    from vault.wiring.journals import recount_catalog  # noqa: PLC0415 - loads storage drivers; most commands need none

    wrong = await recount_catalog(load_config(config))
    out.show({"corrected": wrong}, [("counts corrected", str(wrong))])

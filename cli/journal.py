"""`callvault journal`: shows the nodes' unstored audio, and recovers or abandons a dead node's journal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.command import DEFAULT_CONFIG, ConfigPath, load_config, local, new_group
from cli.output import Output
from vault.errors import Refused
from vault.ids import NodeId
from vault.instants import rfc3339

if TYPE_CHECKING:
    from vault.wiring.journals import Settled

group = new_group("Journals: audio that is not in the object store yet, node by node.")


@local(group, "status", examples=["callvault journal status", "callvault journal status --json"])
async def status(out: Output, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Show every node, its open recordings, and how many bytes only its journal has.

    Unstored bytes are counted when the node was last seen.
    """
    from vault.wiring.journals import journal_status  # noqa: PLC0415 - loads storage drivers; most commands need none

    nodes, absent = await journal_status(load_config(config))
    if out.as_json:
        out.document(
            {
                "nodes": [
                    {
                        "id": node.id,
                        "name": node.name,
                        "open_recordings": node.open_recordings,
                        "unstored_bytes": node.unstored_bytes,
                        "started_at": rfc3339(node.started_at),
                        "seen_at": rfc3339(node.seen_at),
                        "absent": node.id in absent,
                    }
                    for node in nodes
                ]
            }
        )
        return
    rows = [
        (
            node.id,
            node.name,
            node.open_recordings,
            node.unstored_bytes,
            rfc3339(node.seen_at),
            "warning" if node.id in absent else "ok",
        )
        for node in nodes
    ]
    out.table(["node", "where", "open", "unstored bytes", "seen", "state"], rows, empty="no node has ever served")
    for node in nodes:
        if node.id in absent and node.open_recordings:
            out.hint(f"{node.id} is gone: callvault journal recover DIRECTORY, or abandon it if its disk is lost")


@local(group, "recover", examples=["callvault journal recover /mnt/old-node/journal"])
async def recover(
    out: Output,
    directory: Annotated[Path, typer.Argument(help="The dead node's journal directory.", show_default=False)],
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """Finish a dead node's recordings from its journal directory.

    Recordings that ended in order are sealed; the others are truncated at their last durable byte. It refuses while the
    node lives. A node that starts again on its journal does the same by itself.
    """
    from vault.wiring.journals import recover_journal  # noqa: PLC0415 - loads storage drivers; most commands need none

    with _bar(out, "finishing") as progress:
        settled = await recover_journal(load_config(config), directory.absolute(), progress=progress)
    _show(out, settled)
    if settled.files_left:
        out.hint("the remaining files in the directory belong to no open recording of that node: see the log")


@local(group, "abandon", examples=["callvault journal abandon node_018f2f8e5a0b7c3d9e1f2a3b4c5d6e7f --yes"])
async def abandon(
    out: Output,
    node: Annotated[str, typer.Argument(help="node_ and 32 hex digits, from journal status.", show_default=False)],
    config: ConfigPath = DEFAULT_CONFIG,
    yes: Annotated[bool, typer.Option("--yes", help="Accept that audio which only its journal has is lost.")] = False,
) -> None:
    """Close the open recordings of a node whose disk is lost, truncated at what the object store has.

    It refuses while the node is alive, and without --yes.
    """
    from vault.wiring.journals import abandon_node  # noqa: PLC0415 - loads storage drivers; most commands need none

    if not yes:
        raise Refused(
            "audio that only that node's journal has would be lost; nothing was changed",
            hint="if its disk can still be read: callvault journal recover DIRECTORY; else repeat with --yes",
        )
    with _bar(out, "closing") as progress:
        settled = await abandon_node(load_config(config), NodeId(node), progress=progress)
    _show(out, settled)


@contextmanager
def _bar(out: Output, title: str) -> Iterator[Callable[[int, int], None]]:
    with out.progress(title, None, unit="recordings") as bar:
        [task] = bar.task_ids
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _show(out: Output, settled: Settled) -> None:
    found = {"node": settled.node, "recordings": settled.recordings, "files_left": settled.files_left}
    out.show(found, [(name.replace("_", " "), value) for name, value in found.items()])

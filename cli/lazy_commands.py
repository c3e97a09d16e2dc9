"""Imports a command's module only when the command is used, so that `--version` imports none of them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

import typer
import typer.core
from typer._click.shell_completion import CompletionItem
from typer.main import get_group


class _Commands(Mapping[str, Any]):
    """Commands by name; `modules` has the module of each. A command is imported once."""

    def __init__(self, modules: Mapping[str, str]) -> None:
        self._modules = modules
        self._read: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._read:
            self._read[name] = _read(name, self._modules[name])
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)


def _read(name: str, module: str) -> Any:
    """Return one command of a module: one that it registers itself, or its group under this name."""
    found = importlib.import_module(module)
    tree = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode="rich")
    if hasattr(found, "register"):
        found.register(tree)
    else:
        tree.add_typer(found.group, name=name)
    return get_group(tree).commands[name]


class Group(typer.core.TyperGroup):
    """A group whose own options, all of them flags, are not parsed while a line is completed."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Return the rest of a line after the group's own options."""
        if not ctx.resilient_parsing or (args and args[0].startswith("-")):
            return super().parse_args(ctx, args)
        # The library would load pydantic only to validate flags that are absent.
        ctx._protected_args, ctx.args = args[:1], args[1:]  # noqa: SLF001 - what the overridden method leaves behind
        return args[1:]


def lazy_group(modules: Mapping[str, str]) -> type[typer.core.TyperGroup]:
    """Return the class of a group with these commands, each imported when it is used."""

    class LazyGroup(Group):
        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            self.commands = _Commands(modules)  # type: ignore[assignment]  # nothing is added to it

        def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - its shape is the library's
            return list(self.commands)

        def shell_complete(self, ctx: Any, incomplete: str) -> list[CompletionItem]:
            # Names only: help texts are in the modules, and a shell completes at every key.
            own = [*self.params, self.get_help_option(ctx)]
            options = [name for each in own if each is not None for name in each.opts]
            names = options if incomplete.startswith("-") else list(self.commands)
            return [CompletionItem(name) for name in names if name.startswith(incomplete)]

    return LazyGroup

"""The default settings that come with the package: every one of them, with what it is for."""

from __future__ import annotations

from importlib import resources

from vault.errors import IntegrityError


def default_settings(**changed: str) -> str:
    """Return the text of the default config.toml, with settings that it has as `name = …` given other values.

    A value is written as it stands in the file, quotes included. IntegrityError if the package's file is damaged.
    """
    text = resources.files("cli").joinpath("data", "config.toml").read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    for name, value in changed.items():
        at = [number for number, line in enumerate(lines) if line.startswith(f"{name} = ")]
        if len(at) != 1:
            raise IntegrityError("the default settings that come with callvault are damaged", hint="install it again")
        lines[at[0]] = f"{name} = {value}\n"
    return "".join(lines)

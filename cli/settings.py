"""The default settings that come with the package, each with an explanation."""

from __future__ import annotations

from importlib import resources

from vault.errors import IntegrityError


def default_settings(**changed: str) -> str:
    """Return the text of the default config.toml, with the values of the given settings replaced.

    A value is given as TOML, quotes included. IntegrityError if the package's file is damaged.
    """
    text = resources.files("cli").joinpath("data", "config.toml").read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    for name, value in changed.items():
        at = [number for number, line in enumerate(lines) if line.startswith(f"{name} = ")]
        if len(at) != 1:
            raise IntegrityError("the default settings that come with callvault are damaged", hint="install it again")
        lines[at[0]] = f"{name} = {value}\n"
    return "".join(lines)

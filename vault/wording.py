"""Plain messages for a wrong setting, body, parameter or option, instead of the library's texts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

_INSTANT: Final = "must be an instant with a zone, such as 2026-12-01T09:00:00Z"
_NETWORK: Final = "must be a network, such as 10.0.0.0/8"
_WORDS: Final[Mapping[str, str]] = {
    "missing": "is missing",
    "extra_forbidden": "is not a setting",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a smaller whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "string_type": "must be text",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must have the form {pattern}",
    "string_unicode": "must be text",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "model_type": "must be a section or an object with names and values",
    "model_attributes_type": "must be a section or an object with names and values",
    "dict_type": "must be a section or an object with names and values",
    "path_type": "must be a path",
    "path_not_file": "must be a file",
    "path_not_directory": "must be a directory",
    "datetime_type": _INSTANT,
    "datetime_parsing": _INSTANT,
    "datetime_from_date_parsing": _INSTANT,
    "datetime_object_invalid": _INSTANT,
    "timezone_aware": _INSTANT,
    "timezone_offset": _INSTANT,
    "ip_v4_network": _NETWORK,
    "ip_v6_network": _NETWORK,
    "ip_any_network": _NETWORK,
}
_UNKNOWN: Final = "is not a valid value"
_NAME: Final = re.compile(r"[a-z0-9_]+", re.ASCII)
_MEMBERS: Final = frozenset({"ipv4network", "ipv6network"})


def first_misfit(error: ValidationError) -> tuple[str, str]:
    """Return the dotted name of the first value that does not fit, and what is wrong with it.

    The name is empty if it is the document as a whole. No value is repeated, because it can be a secret.
    """
    first = error.errors(include_url=False, include_input=False)[0]
    return _place(first["loc"], first["type"]), _words(first)


def _place(parts: tuple[int | str, ...], kind: str) -> str:
    """Return the names only: the library puts the types that it tried between them."""
    names = [str(part) for part in parts[:-1] if _is_name(part)]
    # The last part of an unknown setting is its name as somebody wrote it, whatever it looks like.
    names += [str(part)[:80] for part in parts[-1:] if kind == "extra_forbidden" or _is_name(part)]
    return ".".join(names)


def _is_name(part: int | str) -> bool:
    return isinstance(part, int) or (_NAME.fullmatch(part) is not None and part not in _MEMBERS)


def _words(found: Mapping[str, Any]) -> str:
    facts = found.get("ctx", {})
    if found["type"] == "value_error":
        return str(facts["error"])  # the text of our own validators
    return _WORDS.get(found["type"], _UNKNOWN).format(**facts)

"""Telephone numbers as the vault compares them: E.164 wherever a value is a full number."""

from __future__ import annotations

from typing import Final

import phonenumbers

DEFAULT_REGION: Final = "GB"
"""How a number without a country code is read."""


def normalised(value: str, region: str = DEFAULT_REGION) -> str | None:
    """Return E.164 where `value` is a full number; extensions, SIP users and withheld numbers stay as they are.

    None for an empty value.
    """
    if not value:
        return None
    try:
        parsed = phonenumbers.parse(value, None if value.startswith("+") else region)
    except phonenumbers.NumberParseException:
        return value
    if not phonenumbers.is_possible_number(parsed):
        return value
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)

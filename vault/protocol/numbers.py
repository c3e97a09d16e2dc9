"""Telephone numbers as the vault compares them: E.164 wherever a value is a full number."""

from __future__ import annotations

from typing import Final

import phonenumbers

DEFAULT_REGION: Final = "GB"
"""How a number without a country code is read."""


def normalised(value: str, region: str = DEFAULT_REGION) -> str | None:
    """Return E.164 where `value` is a full number, without what was dialled after it; else `value` as it is.

    Internal numbers, SIP users and withheld numbers are not full ones. None for an empty value.
    """
    if not value:
        return None
    try:
        parsed = phonenumbers.parse(value, None if value.startswith("+") else region)
    except phonenumbers.NumberParseException:
        return value
    # "Possible locally" is what a three- or four-digit extension of an exchange would be taken for.
    if phonenumbers.is_possible_number_with_reason(parsed) != phonenumbers.ValidationResult.IS_POSSIBLE:
        return value
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)

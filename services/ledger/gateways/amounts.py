"""Amounts as gateways write them: decimal major units, and the ids that they give."""

import re
from decimal import Decimal

from services.shared.money import minor_units_exponent

_AMOUNT = re.compile(r"\d{1,13}(\.\d{1,4})?", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)
_IDENTIFIER = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)


def major_units(amount_minor: int, currency_code: str) -> str:
    """Return an amount as decimal major units with all of the currency's decimals."""
    exponent = minor_units_exponent(currency_code)
    return f"{Decimal(amount_minor).scaleb(-exponent):.{exponent}f}"


def minor_units(text: str, currency_code: str) -> int:
    """Return an amount in minor units. Raises ValueError if it is none of this currency."""
    if not _AMOUNT.fullmatch(text):
        raise ValueError("the amount is not a decimal number")
    minor = Decimal(text).scaleb(minor_units_exponent(currency_code))
    if minor != minor.to_integral_value():
        raise ValueError("the amount has a fraction of a minor unit")
    return int(minor)


def check_currency(text: str) -> str:
    """Return a currency's code. Raises ValueError."""
    if not _CURRENCY.fullmatch(text):
        raise ValueError("the currency is not three capital letters")
    return text


def check_identifier(text: str, name: str) -> str:
    """Return an id of 1 to 64 letters, digits, `_`, `.` and `-`. Raises ValueError."""
    if not _IDENTIFIER.fullmatch(text):
        raise ValueError(f"{name} is not 1 to 64 letters, digits, dots, dashes and underscores")
    return text

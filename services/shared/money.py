"""Converts money between the wire (google.type.Money) and the inside (integer minor units)."""

from dataclasses import dataclass

from google.type import money_pb2

from services.shared.errors import DomainError, Kind

NANOS_PER_UNIT = 1_000_000_000
# ISO 4217 exponents that are not 2, of the currencies that operators are likely to meet.
_EXPONENTS = {"BHD": 3, "IQD": 3, "JOD": 3, "KWD": 3, "LYD": 3, "OMR": 3, "TND": 3}
_EXPONENTS |= {"CLP": 0, "ISK": 0, "JPY": 0, "KRW": 0, "UGX": 0, "VND": 0, "XAF": 0, "XOF": 0}


class MoneyInvalidError(DomainError):
    """Says that an amount cannot be told in whole minor units of its currency."""

    kind = Kind.INVALID
    reason = "REQUEST_INVALID"


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """Is an amount of one currency in minor units (cents, piastres)."""

    currency_code: str
    amount_minor: int


def minor_units_exponent(currency_code: str) -> int:
    """Return how many decimals the currency has (ISO 4217); 2 when it is not in the table."""
    return _EXPONENTS.get(currency_code, 2)


def money_from_proto(message: money_pb2.Money) -> Money:
    """Return `message` in minor units.

    Raises MoneyInvalidError if the currency code is not three capital letters, if units and nanos
    differ in sign, or if the amount has a fraction of a minor unit.
    """
    code = message.currency_code
    if len(code) != 3 or not code.isascii() or not code.isalpha() or not code.isupper():
        raise MoneyInvalidError(f"currency code {code!r} is not three capital letters")
    if abs(message.nanos) >= NANOS_PER_UNIT:
        raise MoneyInvalidError(f"nanos {message.nanos} are a whole unit or more")
    if message.units * message.nanos < 0:
        raise MoneyInvalidError("units and nanos differ in sign")
    nanos_per_minor = NANOS_PER_UNIT // 10 ** minor_units_exponent(code)
    minor, fraction = divmod(abs(message.nanos), nanos_per_minor)
    if fraction:
        raise MoneyInvalidError(f"{code} has no such fraction: {message.nanos} nanos")
    sign = -1 if message.units < 0 or message.nanos < 0 else 1
    whole_minor = abs(message.units) * 10 ** minor_units_exponent(code)
    return Money(currency_code=code, amount_minor=sign * (whole_minor + minor))


def money_to_proto(money: Money) -> money_pb2.Money:
    """Return `money` as the wire has it."""
    scale = 10 ** minor_units_exponent(money.currency_code)
    sign = -1 if money.amount_minor < 0 else 1
    units, minor = divmod(abs(money.amount_minor), scale)
    return money_pb2.Money(
        currency_code=money.currency_code,
        units=sign * units,
        nanos=sign * minor * (NANOS_PER_UNIT // scale),
    )

"""Prices of legs by their length. Money is integer minor units."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

from services.shared.money import Money, minor_units_exponent, money_to_proto
from services.stack.errors import StackError
from wayfare.booking.v1 import trip_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class FareRule:
    """Is the price of a kilometer in units of the currency, and how many times it a class costs."""

    currency_code: str
    per_kilometer: Decimal
    class_factors: Mapping[str, Decimal] = field(default_factory=dict)

    def leg_prices(self, seat_class_code: str, leg_meters: Sequence[float]) -> list[int]:
        """Return the price of each leg in minor units.

        A journey costs the sum of its legs; each is what the way so far costs more with it, so
        that a sum of many short legs is rounded once.
        """
        factor = self.class_factors.get(seat_class_code, Decimal(1))
        rate = self.per_kilometer * factor * 10 ** minor_units_exponent(self.currency_code)
        prices, way, told = [], Decimal(0), 0
        for meters in leg_meters:
            way += Decimal(max(0.0, meters)) / 1_000
            whole = int((way * rate).to_integral_value(ROUND_HALF_UP))
            prices.append(whole - told)
            told = whole
        return prices

    def fares(
        self, seat_class_codes: Sequence[str], leg_meters: Sequence[float]
    ) -> list[trip_pb2.ClassFare]:
        """Return the fares of a trip."""
        return [
            trip_pb2.ClassFare(
                seat_class_code=code,
                leg_prices=[
                    money_to_proto(Money(currency_code=self.currency_code, amount_minor=minor))
                    for minor in self.leg_prices(code, leg_meters)
                ],
            )
            for code in seat_class_codes
        ]


def read_fare_rule(currency_code: str, per_kilometer: str, factors: Sequence[str]) -> FareRule:
    """Return the rule that options say: "AUD", "0.35", ["COMFORT=1.5"]. Raises StackError."""
    if len(currency_code) != 3 or not currency_code.isalpha() or not currency_code.isupper():
        raise StackError(f"{currency_code} is no currency: write three capital letters, as AUD.")
    parsed: dict[str, Decimal] = {}
    for text in factors:
        code, separator, factor = text.partition("=")
        if not separator:
            raise StackError(f"{text} is no factor of a class: write COMFORT=1.5.")
        parsed[code] = _amount(factor)
    return FareRule(
        currency_code=currency_code, per_kilometer=_amount(per_kilometer), class_factors=parsed
    )


def _amount(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or not 0 <= amount <= 1_000_000:
        raise StackError(f"{text} is no amount: write a decimal with a point, as 0.35.")
    return amount

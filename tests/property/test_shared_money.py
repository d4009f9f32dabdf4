"""Money comes back from the wire as it went."""

from hypothesis import given
from hypothesis import strategies as st

from services.shared.money import Money, money_from_proto, money_to_proto

currencies = st.sampled_from(["EGP", "LKR", "GBP", "JPY", "KWD", "XOF", "TND"])
amounts = st.integers(-(10**17), 10**17)


@given(currencies, amounts)
def test_money_round_trips(currency_code: str, amount_minor: int) -> None:
    money = Money(currency_code=currency_code, amount_minor=amount_minor)

    assert money_from_proto(money_to_proto(money)) == money


@given(currencies, amounts)
def test_units_and_nanos_never_differ_in_sign(currency_code: str, amount_minor: int) -> None:
    message = money_to_proto(Money(currency_code=currency_code, amount_minor=amount_minor))

    assert message.units * message.nanos >= 0
    assert abs(message.nanos) < 1_000_000_000

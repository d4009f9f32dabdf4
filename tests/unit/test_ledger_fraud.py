"""Fraud rules: what raises a flag, once a window, from a memory of bounded size."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from google.type import money_pb2

from services.ledger import fraud_messages
from services.ledger.domain.fraud import (
    AMOUNTS_KEPT,
    CURRENCIES_KEPT,
    MOVEMENTS_AN_HOUR_MAX,
    Flag,
    Movement,
    MovementKind,
    Profile,
    Rule,
    judge,
)
from tests.support.location_values import TENANT, new_id
from wayfare.event.v1.envelope_pb2 import Envelope
from wayfare.ledger.v1 import account_pb2, events_pb2, transfer_pb2

pytestmark = pytest.mark.unit

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
USER = "0198c000-0000-7000-8000-0000000000aa"
OTHER = "0198c000-0000-7000-8000-0000000000bb"
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def moved(
    after: timedelta = timedelta(),
    amount: int = 100,
    kind: MovementKind = MovementKind.PAYMENT,
    code: str = "EGP",
) -> Movement:
    return Movement(
        tenant_id=TENANT,
        user_id=USER,
        transfer_id=new_id(),
        kind=kind,
        currency_code=code,
        amount_minor=amount,
        time=NOON + after,
    )


def judged(movements: Sequence[Movement]) -> tuple[Profile, list[Flag]]:
    profile, flags = Profile(), []
    for movement in movements:
        profile, raised = judge(profile, movement)
        flags += raised
    return profile, flags


def rules(flags: Sequence[Flag]) -> list[Rule]:
    return [flag.rule for flag in flags]


def test_ten_movements_an_hour_are_fine_and_the_eleventh_is_not() -> None:
    movements = [moved(MINUTE * number) for number in range(MOVEMENTS_AN_HOUR_MAX + 1)]

    assert judged(movements[:-1])[1] == []
    (flag,) = judged(movements)[1]
    assert (flag.rule, flag.transfer_id) == (Rule.TOO_MANY_MOVEMENTS, movements[-1].transfer_id)
    assert flag.description == "more than 10 movements in an hour"


def test_an_hour_slides() -> None:
    spread = [moved(MINUTE * 6 * number) for number in range(30)]

    assert judged(spread)[1] == []


def test_a_flag_is_raised_once_a_window_and_again_in_the_next() -> None:
    movements = [moved(MINUTE * 2 * number) for number in range(50)]

    flags = judged(movements)[1]

    assert [(flag.window_start, flag.number) for flag in flags] == [(NOON, 1), (NOON + HOUR, 2)]


@pytest.mark.parametrize(
    ("before", "amount", "flagged"),
    [
        ([100] * 5, 1_000, True),
        ([100] * 5, 999, False),
        ([100] * 4, 100_000, False),
        ([100] * 40 + [5_000] * 11, 1_000, True),
        ([100] * 60 + [5_000] * 50, 10_000, False),
    ],
    ids=["ten times", "a little less", "too few", "median", "old ones are forgotten"],
)
def test_ten_times_the_usual_is_unusual(before: list[int], amount: int, flagged: bool) -> None:
    movements = [moved(HOUR * 25 * number, one) for number, one in enumerate([*before, amount])]

    raised = [
        one.rule for one in judged(movements)[1] if one.transfer_id == movements[-1].transfer_id
    ]

    assert raised == ([Rule.UNUSUAL_AMOUNT] if flagged else [])


def test_amounts_of_another_currency_are_not_compared() -> None:
    movements = [moved(HOUR * number) for number in range(6)]

    assert judged([*movements, moved(HOUR * 7, 100_000, code="LKR")])[1] == []


@pytest.mark.parametrize("hours", [0, 24])
def test_a_deposit_and_a_withdrawal_within_a_day_are_flagged(hours: int) -> None:
    deposit = moved(kind=MovementKind.DEPOSIT)
    withdrawal = moved(HOUR * hours, kind=MovementKind.WITHDRAWAL)

    assert rules(judged([deposit, withdrawal])[1]) == [Rule.DEPOSIT_AND_WITHDRAWAL]


def test_a_withdrawal_after_more_than_a_day_is_fine() -> None:
    deposit = moved(kind=MovementKind.DEPOSIT)
    withdrawal = moved(HOUR * 24 + MINUTE, kind=MovementKind.WITHDRAWAL)

    assert judged([deposit, moved(HOUR), withdrawal])[1] == []


def test_what_is_remembered_is_bounded() -> None:
    codes = ["EGP", "LKR", "USD", "EUR", "GBP", "JPY"]
    movements = [moved(MINUTE * number, 1, code=codes[number % 6]) for number in range(1_000)]

    profile = judged(movements)[0]

    assert len(profile.times) == MOVEMENTS_AN_HOUR_MAX + 1
    assert len(profile.amounts) == CURRENCIES_KEPT
    assert all(len(amounts) <= AMOUNTS_KEPT for amounts in profile.amounts.values())


WALLET = account_pb2.ACCOUNT_KIND_WALLET
CLEARING = account_pb2.ACCOUNT_KIND_GATEWAY_CLEARING
REVENUE = account_pb2.ACCOUNT_KIND_REVENUE
PAYING_OUT = account_pb2.ACCOUNT_KIND_WITHDRAWALS
Line = tuple["account_pb2.AccountKind.ValueType", str, int]


def recorded(
    *lines: Line,
    phase: "transfer_pb2.TransferPhase.ValueType" = transfer_pb2.TRANSFER_PHASE_POSTED,
    kind_of_transfer: str = "TEST",
    pending_transfer_id: str = "",
    refunded_transfer_id: str = "",
) -> bytes:
    transfer = transfer_pb2.Transfer(
        transfer_id=new_id(),
        kind=kind_of_transfer,
        pending_transfer_id=pending_transfer_id,
        refunded_transfer_id=refunded_transfer_id,
        phase=phase,
        amount=money_pb2.Money(currency_code="EGP", units=5),
        postings=[
            transfer_pb2.Posting(
                account=account_pb2.AccountName(kind=kind, subject=subject),
                side=transfer_pb2.SIDE_CREDIT if units > 0 else transfer_pb2.SIDE_DEBIT,
                amount=money_pb2.Money(currency_code="EGP", units=abs(units)),
            )
            for kind, subject, units in lines
        ],
    )
    transfer.create_time.FromDatetime(NOON)
    envelope = Envelope(event_id=new_id(), tenant_id=TENANT)
    envelope.payload.Pack(events_pb2.TransferRecorded(transfer=transfer))
    return envelope.SerializeToString()


MINE, THEIRS = (WALLET, USER, -5), (WALLET, OTHER, 5)


@pytest.mark.parametrize(
    ("envelope", "kinds"),
    [
        (recorded((CLEARING, "PAYHERE", -5), (WALLET, USER, 5)), [MovementKind.DEPOSIT]),
        (recorded(MINE, THEIRS), [MovementKind.PAYMENT]),
        (
            recorded(MINE, (REVENUE, "", 1), (WALLET, OTHER, 4), kind_of_transfer="TRIP_FARE"),
            [MovementKind.PAYMENT],
        ),
        (recorded(MINE, (REVENUE, "", 5), kind_of_transfer="TRIP_FARE"), []),
        (recorded(MINE, THEIRS, refunded_transfer_id=new_id()), []),
        (recorded(MINE, THEIRS, phase=transfer_pb2.TRANSFER_PHASE_PENDING), []),
        (
            recorded(
                MINE,
                THEIRS,
                phase=transfer_pb2.TRANSFER_PHASE_POST,
                pending_transfer_id=new_id(),
            ),
            [MovementKind.PAYMENT],
        ),
        (
            recorded(MINE, (PAYING_OUT, "", 5), phase=transfer_pb2.TRANSFER_PHASE_PENDING),
            [MovementKind.WITHDRAWAL],
        ),
        (
            recorded(
                MINE,
                (PAYING_OUT, "", 5),
                phase=transfer_pb2.TRANSFER_PHASE_POST,
                pending_transfer_id=new_id(),
            ),
            [],
        ),
        (recorded(MINE, THEIRS, phase=transfer_pb2.TRANSFER_PHASE_VOID), []),
        (Envelope(event_id=new_id()).SerializeToString(), []),
    ],
    ids=[
        "deposit",
        "payment",
        "fare",
        "commission of a cash trip",
        "refund",
        "hold",
        "held payment",
        "requested withdrawal",
        "paid withdrawal",
        "void",
        "something else",
    ],
)
def test_what_a_person_moved_is_read_from_events(
    envelope: bytes, kinds: list[MovementKind]
) -> None:
    found = fraud_messages.movements_of(envelope)

    assert [one.kind for one in found] == kinds
    assert all((one.user_id, one.amount_minor, one.time) == (USER, 500, NOON) for one in found)

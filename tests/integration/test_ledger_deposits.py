"""Deposits over real servers: who may make them, and what notifications count."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from services.stack.payment_gateways import (
    Payment,
)
from tests.support.ledger_deposits import (
    KASHIER,
    PAYHERE,
    SETTINGS,
    Teller,
    both_gateways,
    outcome,
    state,
)
from tests.support.ledger_process import (
    money,
    pb,
    running_ledger,
)
from tests.support.location_tokens import TokenMint
from tests.support.location_values import TENANT, new_id

pytestmark = pytest.mark.integration


# Creating


@both_gateways
async def test_a_deposit_says_how_to_pay_and_the_same_request_the_same(
    teller: Teller, gateway: Any
) -> None:
    user = teller.ledger.bearer("PASSENGER", new_id())
    request = teller.request(gateway, return_url="https://example.org/back")

    first = await teller.ledger.call("CreateDeposit", request, user)
    again = await teller.ledger.call("CreateDeposit", request, user)

    assert first == again
    assert first.deposit.state == state("PENDING")
    assert "https" in first.checkout.url
    assert bool(first.checkout.form_fields) == (gateway == PAYHERE)
    assert await teller.states_told(first.deposit) == ["PENDING"]


async def test_one_request_id_with_another_amount_is_refused(teller: Teller) -> None:
    user = teller.ledger.bearer("PASSENGER", new_id())
    request = teller.request(KASHIER)
    await teller.ledger.call("CreateDeposit", request, user)
    request.amount.CopyFrom(money(10_001))

    refusal = await teller.ledger.refused("CreateDeposit", request, user)

    assert refusal.reason == "REQUEST_ID_REUSED"


async def test_the_same_request_at_once_makes_one_deposit(teller: Teller) -> None:
    user = teller.ledger.bearer("PASSENGER", new_id())
    request = teller.request(KASHIER)

    answers = await asyncio.gather(
        *(teller.ledger.call("CreateDeposit", request, user) for _ in range(10))
    )

    assert len({answer.SerializeToString(deterministic=True) for answer in answers}) == 1
    assert await teller.states_told(answers[0].deposit) == ["PENDING"]


@pytest.mark.parametrize(
    ("gateway", "amount", "reason"),
    [
        (KASHIER, money(10_000, "LKR"), "CURRENCY_MISMATCH"),
        (PAYHERE, money(10_000, "EGP"), "CURRENCY_MISMATCH"),
        (KASHIER, money(99, "EGP"), "AMOUNT_INVALID"),
        (KASHIER, money(0, "EGP"), "AMOUNT_INVALID"),
        (KASHIER, money(-10_000, "EGP"), "AMOUNT_INVALID"),
        (KASHIER, money(5_000_001, "EGP"), "AMOUNT_INVALID"),
    ],
)
async def test_what_the_gateway_does_not_take_is_refused(
    teller: Teller, gateway: Any, amount: Any, reason: str
) -> None:
    user = teller.ledger.bearer("PASSENGER", new_id())

    refusal = await teller.ledger.refused(
        "CreateDeposit", teller.request(gateway, amount=amount), user
    )

    assert refusal.reason == reason


@pytest.mark.parametrize("field", ["user_id", "reference", "expire_time"])
async def test_people_deposit_into_their_own_wallet_alone(teller: Teller, field: str) -> None:
    later = Timestamp()
    later.GetCurrentTime()
    values = {"user_id": new_id(), "reference": "booking/1", "expire_time": later}
    request = teller.request(KASHIER, **{field: values[field]})

    refusal = await teller.ledger.refused(
        "CreateDeposit", request, teller.ledger.bearer("ADMIN", new_id())
    )

    assert refusal.reason == "REQUEST_INVALID"


async def test_booking_deposits_for_a_passenger_with_a_reference_and_a_deadline(
    teller: Teller,
) -> None:
    soon = Timestamp()
    soon.GetCurrentTime()
    soon.seconds += 600
    user = new_id()
    request = teller.request(
        KASHIER, tenant_id=TENANT, user_id=user, reference="booking/7", expire_time=soon
    )

    made = (await teller.ledger.call("CreateDeposit", request)).deposit
    request.expire_time.seconds -= 100_000
    request.request_id = new_id()
    past = await teller.ledger.refused("CreateDeposit", request)
    request.user_id = ""
    nobody = await teller.ledger.refused("CreateDeposit", request)

    assert (made.user_id, made.reference, made.expire_time) == (user, "booking/7", soon)
    assert (past.reason, nobody.reason) == ("REQUEST_INVALID", "REQUEST_INVALID")


async def test_a_deposit_is_seen_by_its_person_and_by_staff_alone(teller: Teller) -> None:
    user = new_id()
    deposit = await teller.deposit(user=user)
    request = pb.GetDepositRequest(deposit_id=deposit.deposit_id)
    ledger = teller.ledger

    own = await ledger.call("GetDeposit", request, ledger.bearer("PASSENGER", user))
    staff = await ledger.call("GetDeposit", request, ledger.bearer("BUSINESS", new_id()))
    other = await ledger.refused("GetDeposit", request, ledger.bearer("DRIVER", new_id()))
    elsewhere = await ledger.refused(
        "GetDeposit", request, ledger.bearer("ADMIN", new_id(), tenant_id=new_id())
    )

    assert own == staff == deposit
    assert (other.reason, elsewhere.reason) == ("DEPOSIT_UNKNOWN", "DEPOSIT_UNKNOWN")


# What counts


@both_gateways
async def test_a_paid_deposit_is_in_the_wallet_when_the_webhook_is_answered(
    teller: Teller, gateway: Any
) -> None:
    deposit = await teller.deposit(gateway)

    assert await teller.tell(deposit) == outcome("APPLIED")

    paid = await teller.now(deposit)
    assert paid.state == state("SUCCEEDED")
    assert paid.gateway_payment_id == f"TX-{deposit.deposit_id[:8]}"
    assert await teller.balance(deposit) == 10_000
    assert await teller.states_told(deposit) == ["PENDING", "SUCCEEDED"]
    moved = await teller.ledger.call(
        "GetTransfer", pb.GetTransferRequest(transfer_id=paid.transfer_id, tenant_id=TENANT)
    )
    assert (moved.kind, moved.reference) == ("DEPOSIT", f"deposit/{deposit.deposit_id}")


@both_gateways
async def test_a_webhook_that_comes_again_counts_once(teller: Teller, gateway: Any) -> None:
    deposit = await teller.deposit(gateway)
    post = teller.post(deposit)

    outcomes = [await teller.send(post) for _ in range(3)]

    assert outcomes == [outcome("APPLIED"), outcome("DUPLICATE"), outcome("DUPLICATE")]
    assert await teller.balance(deposit) == 10_000
    assert await teller.audit() == [
        ("APPLIED", "", True),
        ("DUPLICATE", "", True),
        ("DUPLICATE", "", True),
    ]


async def test_fifty_at_once_on_two_processes_count_once(
    teller: Teller, valkey_url: str, short_folder: Path
) -> None:
    deposit = await teller.deposit()
    post = teller.post(deposit)
    dsn = teller.database.dsn_for("ledger")
    async with running_ledger(
        short_folder, dsn=dsn, valkey_url=valkey_url, mint=TokenMint(), **SETTINGS
    ) as other:
        outcomes = await asyncio.gather(
            *(teller.send(post, ledger=(teller.ledger, other)[n % 2]) for n in range(50))
        )

    assert outcomes.count(outcome("APPLIED")) == 1
    assert outcomes.count(outcome("DUPLICATE")) == 49
    assert await teller.balance(deposit) == 10_000
    assert await teller.states_told(deposit) == ["PENDING", "SUCCEEDED"]
    kept = await teller.rows("SELECT sum(webhook_count)::int FROM ledger.payment_webhooks")
    assert kept[0][0] == 50


async def test_a_failure_after_the_success_takes_nothing_back(teller: Teller) -> None:
    deposit = await teller.deposit()
    await teller.tell(deposit)

    late = await teller.tell(deposit, Payment.FAILED)

    assert late == outcome("IGNORED")
    assert await teller.state(deposit) == "SUCCEEDED"
    assert (await teller.audit())[1] == ("IGNORED", "AFTER_LATER_STATE", True)


async def test_a_success_after_a_failure_counts(teller: Teller) -> None:
    deposit = await teller.deposit()

    outcomes = [
        await teller.tell(deposit, payment)
        for payment in (Payment.FAILED, Payment.FAILED, Payment.PAID)
    ]

    assert outcomes == [outcome("APPLIED"), outcome("DUPLICATE"), outcome("APPLIED")]
    assert await teller.balance(deposit) == 10_000
    assert await teller.states_told(deposit) == ["PENDING", "FAILED", "SUCCEEDED"]


@both_gateways
async def test_what_is_on_its_way_changes_nothing(teller: Teller, gateway: Any) -> None:
    deposit = await teller.deposit(gateway)

    assert await teller.tell(deposit, Payment.PENDING) == outcome("IGNORED")

    assert await teller.state(deposit) == "PENDING"
    assert await teller.audit() == [("IGNORED", "STATUS_NOT_FOLLOWED", True)]


async def test_a_deposit_expires_and_a_late_payment_still_counts(teller: Teller) -> None:
    soon = Timestamp()
    soon.GetCurrentTime()
    soon.seconds += 1
    request = teller.request(KASHIER, tenant_id=TENANT, user_id=new_id(), expire_time=soon)
    deposit = (await teller.ledger.call("CreateDeposit", request)).deposit
    await teller.until_state(deposit, "EXPIRED")

    refused = await teller.tell(deposit, Payment.FAILED)
    late = await teller.tell(deposit)

    assert (refused, late) == (outcome("IGNORED"), outcome("APPLIED"))
    assert await teller.balance(deposit) == 10_000
    assert await teller.states_told(deposit) == ["PENDING", "EXPIRED", "SUCCEEDED"]


@both_gateways
async def test_a_second_payment_of_one_order_is_kept_for_people_and_not_counted(
    teller: Teller, gateway: Any
) -> None:
    deposit = await teller.deposit(gateway)
    await teller.tell(deposit)

    assert await teller.tell(deposit, payment_id="TX-other") == outcome("IGNORED")

    assert await teller.balance(deposit) == 10_000
    assert (await teller.audit())[1] == ("IGNORED", "PAID_AGAIN", True)


async def test_a_payment_counts_for_one_deposit(teller: Teller) -> None:
    first, second = await teller.deposit(PAYHERE), await teller.deposit(PAYHERE)
    await teller.tell(first, payment_id="320025021815")

    assert await teller.tell(second, payment_id="320025021815") == outcome("DUPLICATE")

    assert await teller.state(second) == "PENDING"
    assert await teller.balance(second) == 0
    assert (await teller.audit())[1] == ("DUPLICATE", "PAYMENT_TAKEN", True)

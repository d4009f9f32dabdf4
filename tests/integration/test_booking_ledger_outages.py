"""What becomes of bookings when the ledger forgets, refuses, or is asked nonsense."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from services.booking.domain import charges
from services.booking.domain.charges import Charge, ChargePhase
from services.booking.gateways import LedgerGateway
from services.shared.clock import SystemClock
from services.shared.errors import DependencyUnavailableError
from services.shared.tasks import cancel_all
from tests.support.booking_money import (
    CANCELLED,
    CONFIRMED,
    LEG_MINOR,
    PAID,
    Shop,
    running_shop,
)
from tests.support.ledger_process import REVENUE, minor, transfer, wallet
from tests.support.location_values import TENANT, new_id
from tests.support.stack_fixtures import TestDatabase
from wayfare.booking.v1 import booking_pb2
from wayfare.ledger.v1 import transfer_pb2

pytestmark = pytest.mark.integration
_FARE = 3 * LEG_MINOR


@pytest.fixture
async def shop(
    module_database: TestDatabase, valkey_url: str, short_folder: Path
) -> AsyncIterator[Shop]:
    async with running_shop(short_folder, database=module_database, valkey_url=valkey_url) as one:
        yield one


async def _confirmed_unposted(shop: Shop, user_id: str) -> booking_pb2.Booking:
    """Return a booking that has its seats, and whose pending transfer somebody voided by hand."""
    hold = await shop.hold(await shop.trip(), user_id, "2A")
    shop.line.cut_after = 1  # the reservation goes through, and nothing after it
    booking = await shop.book(hold, user_id)
    assert booking.state == CONFIRMED
    void = transfer_pb2.NewTransfer(
        transfer_id=new_id(),
        void_pending_transfer_id=charges.pending_id(booking.booking_id, 0),
    )
    assert await shop.ledger.create(void) == [""]
    return booking


async def test_a_fare_that_the_ledger_let_go_is_reserved_again(shop: Shop) -> None:
    nour = await shop.passenger(2 * _FARE)
    booking = await _confirmed_unposted(shop, nour)

    shop.line.cut_after = None

    after = await shop.until_payment(booking.booking_id, PAID)
    assert after.state == CONFIRMED
    assert after.payment.transfer_id == charges.posting_id(booking.booking_id, 1)
    assert await shop.money_of(nour) == (_FARE, 0)


async def test_a_fare_that_the_ledger_let_go_and_that_is_gone_ends_the_booking(shop: Shop) -> None:
    nour = await shop.passenger(_FARE)
    booking = await _confirmed_unposted(shop, nour)
    spent = transfer(wallet(nour), REVENUE, _FARE)
    assert await shop.ledger.create(spent) == [""]

    shop.line.cut_after = None

    after = await shop.until_state(booking.booking_id, CANCELLED)
    assert after.cancellation.cause == booking_pb2.CANCELLATION_CAUSE_OPERATOR
    assert after.payment.failure_reason == "FUNDS_INSUFFICIENT"
    assert minor(after.payment.refunded_amount) == 0
    assert await shop.claims(after.trip_id) == {}


async def test_a_booking_that_cancels_before_its_fare_is_posted_gets_it_back(shop: Shop) -> None:
    nour = await shop.passenger(_FARE)
    hold = await shop.hold(await shop.trip(), nour, "2A")
    shop.line.cut_after = 1
    booking = await shop.book(hold, nour)

    cancelled = await shop.cancel(booking.booking_id, new_id(), "ADMIN")
    assert cancelled.payment.state == booking_pb2.PAYMENT_STATE_REFUND_PENDING
    shop.line.cut_after = None

    await shop.until_payment(booking.booking_id, booking_pb2.PAYMENT_STATE_REFUNDED)
    assert await shop.money_of(nour) == (_FARE, 0)


def _charge(user_id: str, amount_minor: int) -> Charge:
    booking_id = new_id()
    return Charge(
        phase=ChargePhase.RESERVE,
        tenant_id=TENANT,
        transfer_id=charges.pending_id(booking_id, 0),
        user_id=user_id,
        amount_minor=amount_minor,
        currency_code="EGP",
        reference=charges.reference_of(booking_id),
        timeout_seconds=60,
    )


async def test_many_charges_share_calls_and_each_gets_its_own_answer(shop: Shop) -> None:
    channel = grpc.aio.insecure_channel(shop.ledger.settings.listen, interceptors=[shop.line])
    gateway = LedgerGateway(
        channel, clock=SystemClock(), new_id=new_id, calls_at_once=2, gather_seconds=0.01
    )
    running = asyncio.create_task(gateway.run())
    rich, poor = await shop.passenger(100_000), await shop.passenger(0)
    shop.line.calls.clear()

    answers = await asyncio.gather(
        *(gateway.charge(_charge(rich if n % 2 else poor, 100)) for n in range(100)),
        # What the ledger cannot read does not touch the others of its call.
        gateway.charge(_charge(rich, 0)),
    )

    assert answers[:100] == ["FUNDS_INSUFFICIENT", ""] * 50
    assert answers[100]
    shop.line.calls.clear()
    await asyncio.gather(*(gateway.charge(_charge(rich, 1)) for _ in range(100)))
    assert len(shop.line.calls) <= 4
    shop.line.cut = True
    with pytest.raises(DependencyUnavailableError):
        await gateway.charge(_charge(rich, 1))
    await cancel_all([running])
    await channel.close()

"""Completed trips, as others tell of them, against what was paid."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.ledger.audit_messages import expected_payments_of
from services.ledger.audit_parts import take_completed_trips
from services.shared.events.streams import partition_of, stream_key
from services.shared.postgres import Session, open_database
from services.shared.valkey import open_valkey
from tests.support.ledger_process import REVENUE, LedgerProcess, money, pb, transfer, wallet
from tests.support.ledger_reconciling import TRIPS, found_in, reconcile
from tests.support.location_values import TENANT, new_id
from tests.support.stack_fixtures import TestDatabase
from wayfare.event.v1.envelope_pb2 import Envelope
from wayfare.event.v1.trip_completed_pb2 import TripCompleted

pytestmark = pytest.mark.integration

NOW = datetime.now(UTC)


def completed(
    reference: str, amount_minor: int, passenger: str, *, hours: float = 48, **values: Any
) -> Envelope:
    """Return the event that a trip ended so many hours ago."""
    event = TripCompleted(
        trip_id=new_id(), passenger_user_id=passenger, payment_reference=reference, **values
    )
    if amount_minor:
        event.amount.CopyFrom(money(amount_minor))
    event.complete_time.FromDatetime(NOW - timedelta(hours=hours))
    envelope = Envelope(
        event_id=new_id(),
        tenant_id=TENANT,
        aggregate_type="trip",
        aggregate_id=event.trip_id,
        aggregate_version=1,
    )
    envelope.payload.Pack(event)
    return envelope


async def expect(database: TestDatabase, *events: Envelope) -> list[str]:
    """Take events as the consumer does, twice; return the subjects of their trips."""
    service = await open_database(database.dsn_for("ledger"), pool_size=1)
    for _ in range(2):
        async with service.transaction(Session(role="SWEEPER")) as connection:
            await take_completed_trips(connection, events)
    await service.close()
    return [f"trip/{one.trip_id}" for one in expected_payments_of(events)]


async def pay(ledger: LedgerProcess, user: str, amount: int, reference: str, **values: Any) -> str:
    paid = transfer(wallet(user), REVENUE, amount, reference=reference, **values)
    assert await ledger.create(paid) == [""]
    return paid.transfer_id


async def test_trips_that_are_paid_once_have_no_discrepancies(
    ledger: LedgerProcess, migrated_database: TestDatabase
) -> None:
    user, driver = await ledger.person(100_000), await ledger.person(1_000)
    names = [f"booking/{uuid.uuid4()}" for _ in range(6)]
    await pay(ledger, user, 500, names[0])
    # Paid twice, and one of the two given back.
    await pay(ledger, user, 500, names[1])
    refund = pb.RefundTransferRequest(
        tenant_id=TENANT,
        transfer_id=await pay(ledger, user, 500, names[1]),
        request_id=new_id(),
    )
    await ledger.call("RefundTransfer", refund)
    # A tip beside the fare; cash, of which the ledger sees the commission; two passengers.
    await pay(ledger, user, 500, names[2])
    await pay(ledger, user, 50, names[2], kind="TIP")
    await pay(ledger, driver, 75, names[3], kind="TRIP_FARE")
    await pay(ledger, user, 500, names[5])
    await pay(ledger, driver, 500, names[5])
    events = [completed(name, 500, user) for name in (*names[:4], names[5])]
    events.append(completed(names[5], 500, driver))
    # Not paid yet, and nothing to pay.
    events += [completed(names[4], 500, user, hours=2), completed("", 0, user)]
    await expect(migrated_database, *events)

    assert not (await reconcile(ledger, TRIPS)).discrepancies


async def test_trips_that_are_not_paid_once_are_named(
    ledger: LedgerProcess, migrated_database: TestDatabase
) -> None:
    user, driver = await ledger.person(100_000), await ledger.person(1_000)
    names = [f"trip/{uuid.uuid4()}" for _ in range(6)]
    await pay(ledger, user, 300, names[1])
    for _ in range(2):
        await pay(ledger, user, 500, names[2])
        await pay(ledger, driver, 75, names[3], kind="TRIP_FARE")
    await pay(ledger, user, 500, names[4])
    await ledger.hold(user, 500, reference=names[5])
    amounts = (500, 500, 500, 500, 0, 500)
    subjects = await expect(
        migrated_database,
        *(completed(name, amount, user) for name, amount in zip(names, amounts, strict=True)),
    )

    report = await reconcile(ledger, TRIPS)

    assert found_in(report) == {
        subjects[0]: ["the trip is not paid"],
        subjects[1]: ["less is paid than is due"],
        subjects[2]: ["more is paid than is due, by 2 payments"],
        subjects[3]: ["the trip is settled 2 times for 1 passengers"],
        subjects[4]: ["more is paid than is due, by 1 payments"],
        subjects[5]: ["the trip is not paid"],
    }
    twice = next(one for one in report.discrepancies if "by 2" in one.description)
    assert (twice.found, twice.expected) == (money(1_000), money(500))


async def test_completed_trips_are_taken_from_the_streams_of_others(
    ledger: LedgerProcess, migrated_database: TestDatabase, valkey_url: str
) -> None:
    user = await ledger.person(100)
    event = completed(f"booking/{uuid.uuid4()}", 500, user)
    valkey = open_valkey(valkey_url, cluster=False)
    partition = partition_of(f"trip/{event.aggregate_id}")
    await valkey.xadd(stream_key("booking", partition), {"0": event.SerializeToString()})
    await valkey.aclose()

    async with asyncio.timeout(20):
        while not (report := await reconcile(ledger, TRIPS)).discrepancies:
            await asyncio.sleep(0.1)

    assert found_in(report) == {f"trip/{event.aggregate_id}": ["the trip is not paid"]}


async def test_discrepancies_are_counted_and_the_first_thousand_kept(
    ledger: LedgerProcess, migrated_database: TestDatabase
) -> None:
    user = await ledger.person(100)
    await expect(
        migrated_database, *(completed(f"trip/{number}", 5, user) for number in range(1_010))
    )

    report = await reconcile(ledger, TRIPS)

    assert (report.discrepancy_count, len(report.discrepancies)) == (1_010, 1_000)

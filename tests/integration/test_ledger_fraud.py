"""Fraud flags over real servers: raised once by several processes, told, and nobody is blocked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.support.ledger_process import (
    CLEARING,
    REVENUE,
    LedgerProcess,
    money,
    pb,
    running_ledger,
    transfer,
    wallet,
)
from tests.support.location_tokens import TokenMint
from tests.support.location_values import TENANT, new_id
from tests.support.stack_fixtures import TestDatabase
from wayfare.event.v1.envelope_pb2 import Envelope
from wayfare.ledger.v1 import events_pb2

pytestmark = pytest.mark.integration

_FLAGS = "SELECT rule FROM ledger.fraud_flags WHERE user_id = $1 ORDER BY rule"
_EVENTS = """
SELECT envelope FROM ledger.events WHERE aggregate_type = 'fraud' AND aggregate_id = $1
ORDER BY aggregate_version
"""
_BEHIND = """
SELECT count(*) FROM ledger.events e, ledger.fraud_cursor c
WHERE (e.transaction_id, e.event_number) > (c.transaction_id, c.event_number)
"""


class Watched:
    """Two processes that look for fraud, and a look at the database."""

    def __init__(self, ledger: LedgerProcess, connection: "asyncpg.Connection[Any]") -> None:
        self.ledger = ledger
        self.connection = connection

    async def flags(self, user: str) -> list[str]:
        """Return the rules that flagged a person, when everything is looked at."""
        async with asyncio.timeout(20):
            while await self.connection.fetchval(_BEHIND):
                await asyncio.sleep(0.02)
        return [row[0] for row in await self.connection.fetch(_FLAGS, user)]

    async def told(self, user: str) -> list[events_pb2.FraudFlagged]:
        told = []
        for number, row in enumerate(await self.connection.fetch(_EVENTS, user), 1):
            envelope = Envelope.FromString(row[0])
            assert (envelope.tenant_id, envelope.aggregate_version) == (TENANT, number)
            flagged = events_pb2.FraudFlagged()
            assert envelope.payload.Unpack(flagged)
            told.append(flagged)
        return told

    async def pay(self, user: str, count: int, amount: int = 10) -> None:
        payments = [transfer(wallet(user), REVENUE, amount) for _ in range(count)]
        assert await self.ledger.create(*payments) == [""] * count


@pytest.fixture
async def watched(
    migrated_database: TestDatabase, valkey_url: str, short_folder: Path
) -> AsyncIterator[Watched]:
    dsn, mint = migrated_database.dsn_for("ledger"), TokenMint()
    async with AsyncExitStack() as stack:
        processes = [
            await stack.enter_async_context(
                running_ledger(
                    short_folder,
                    dsn=dsn,
                    valkey_url=valkey_url,
                    mint=mint,
                    ledger_fraud_seconds=0.02,
                )
            )
            for _ in range(2)
        ]
        connection = await asyncpg.connect(migrated_database.admin_dsn)
        stack.push_async_callback(connection.close)
        yield Watched(processes[0], connection)


async def test_the_eleventh_movement_of_an_hour_is_flagged_once(watched: Watched) -> None:
    users = [await watched.ledger.person(1_000) for _ in range(6)]

    # With the deposit these are ten, and more for one of them.
    start = datetime.now(UTC)
    for number, user in enumerate(users):
        await asyncio.gather(*(watched.pay(user, 3 if not number else 1) for _ in range(9)))

    flags = [await watched.flags(user) for user in users]
    # Twice if a new hour began meanwhile.
    hours = len({start.hour, datetime.now(UTC).hour})
    assert flags in [[["TOO_MANY_MOVEMENTS"] * count, *[[]] * 5] for count in range(1, hours + 1)]
    flagged = (await watched.told(users[0]))[0]
    assert (flagged.user_id, flagged.rule) == (users[0], events_pb2.FRAUD_RULE_TOO_MANY_MOVEMENTS)


async def test_ten_times_the_usual_is_flagged_and_told_without_personal_data(
    watched: Watched,
) -> None:
    user = await watched.ledger.person(1_000)
    await watched.pay(user, 6)
    unusual = transfer(CLEARING, wallet(user), 50_000)
    assert await watched.ledger.create(unusual) == [""]

    assert await watched.flags(user) == ["UNUSUAL_AMOUNT"]
    (flagged,) = await watched.told(user)
    assert flagged.transfer_id == unusual.transfer_id
    assert flagged.description == "50000 EGP in minor units, where 10 is usual"


async def test_a_withdrawal_soon_after_a_deposit_is_flagged_before_an_admin_decides(
    watched: Watched,
) -> None:
    user = await watched.ledger.person(9_000)
    request = pb.RequestWithdrawalRequest(
        amount=money(2_000), payout_destination="bank", request_id=new_id()
    )
    person = watched.ledger.bearer("PASSENGER", user)

    requested = await watched.ledger.call("RequestWithdrawal", request, person)

    assert await watched.flags(user) == ["DEPOSIT_AND_WITHDRAWAL"]
    (flagged,) = await watched.told(user)
    assert flagged.transfer_id == requested.transfer_id


async def test_a_flag_blocks_nobody_and_an_admin_does(watched: Watched) -> None:
    user = await watched.ledger.person(9_000)
    person, admin = (
        watched.ledger.bearer("PASSENGER", user),
        watched.ledger.bearer("ADMIN", new_id()),
    )
    await watched.pay(user, 12)
    assert "TOO_MANY_MOVEMENTS" in await watched.flags(user)

    def request() -> pb.RequestWithdrawalRequest:
        return pb.RequestWithdrawalRequest(
            amount=money(2_000), payout_destination="bank", request_id=new_id()
        )

    requested = await watched.ledger.call("RequestWithdrawal", request(), person)
    account = await watched.ledger.account(user)
    account.blocked = True
    block = pb.UpdateAccountRequest(account=account)
    block.update_mask.paths.append("blocked")
    await watched.ledger.call("UpdateAccount", block, admin)

    again = await watched.ledger.refused("RequestWithdrawal", request(), person)
    approval = pb.ApproveWithdrawalRequest(
        withdrawal_id=requested.withdrawal_id, request_id=new_id()
    )
    approved = await watched.ledger.refused("ApproveWithdrawal", approval, admin)
    assert [again.reason, approved.reason] == ["ACCOUNT_BLOCKED"] * 2

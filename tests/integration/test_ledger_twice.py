"""The same request several times at once, with money for once: one answer, and it is done once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from services.ledger import withdrawal_messages
from services.ledger.domain.accounts import Account
from services.ledger.domain.withdrawals import State
from services.ledger.operations.withdrawals import WithdrawalRequest, Withdrawals
from services.ledger.ports import Reader
from services.ledger.store.ledger import PostgresLedgerStore
from services.ledger.store.withdrawals import PostgresWithdrawalStore
from services.shared.clock import Clock
from services.shared.postgres import Database
from tests.support import ledger_flows as flows
from tests.support.ledger_desk import Desk, approval, desk_of, rejection, wanted
from tests.support.ledger_process import BOOKING, REVENUE, money, pb, transfer, wallet
from tests.support.ledger_simulation import Simulation, open_simulation
from tests.support.location_values import TENANT, new_id
from tests.support.payout_bridge import Behaviour, running_bridge
from tests.support.stack_fixtures import TestDatabase

pytestmark = pytest.mark.integration

AMOUNT = 3_000
ROUNDS, CALLERS = 10, 6
Asked = tuple[str, Message, Any]


@pytest.fixture
async def desk(
    migrated_database: TestDatabase, valkey_url: str, short_folder: Path
) -> AsyncIterator[Desk]:
    """Two processes."""
    async with AsyncExitStack() as stack:
        bridge = stack.enter_context(running_bridge())
        yield await desk_of(
            stack, migrated_database, valkey_url, short_folder, 2, **bridge.settings
        )


def settlement(user: str) -> pb.SettleTripRequest:
    return pb.SettleTripRequest(
        tenant_id=TENANT,
        trip_id=new_id(),
        passenger_user_id=user,
        driver_user_id=new_id(),
        method=pb.PAYMENT_METHOD_WALLET,
        fare=money(AMOUNT),
        commission_basis_points=1_500,
        request_id=new_id(),
    )


async def settles(_: Desk, user: str) -> Asked:
    return "SettleTrip", settlement(user), BOOKING


async def refunds(desk: Desk, user: str) -> Asked:
    paid = await desk.ledger.call("SettleTrip", settlement(user))
    request = pb.RefundTransferRequest(
        tenant_id=TENANT, transfer_id=paid.transfer_id, amount=money(AMOUNT), request_id=new_id()
    )
    return "RefundTransfer", request, BOOKING


async def holds(_: Desk, user: str) -> Asked:
    request = pb.CreateTransfersRequest(
        tenant_id=TENANT,
        transfers=[transfer(wallet(user), REVENUE, AMOUNT, pending=True)],
        request_id=new_id(),
    )
    return "CreateTransfers", request, BOOKING


async def posts(desk: Desk, user: str) -> Asked:
    held = await desk.ledger.hold(user, AMOUNT)
    request = pb.PostPendingRequest(tenant_id=TENANT, pending_transfer_id=held, request_id=new_id())
    return "PostPending", request, BOOKING


async def withdraws(desk: Desk, user: str) -> Asked:
    return "RequestWithdrawal", wanted(AMOUNT), desk.person(user)


async def approves(desk: Desk, user: str) -> Asked:
    asked = await desk.request(user, AMOUNT)
    return "ApproveWithdrawal", approval(asked.withdrawal_id), desk.admin


async def rejects(desk: Desk, user: str) -> Asked:
    asked = await desk.request(user, AMOUNT)
    return "RejectWithdrawal", rejection(asked.withdrawal_id), desk.admin


async def ask_at_once(desk: Desk, asked: Asked) -> list[Any]:
    method, request, caller = asked
    return await asyncio.gather(
        *(desk.processes[n % 2].call(method, request, caller) for n in range(CALLERS))
    )


@pytest.mark.parametrize("ask", [approves, rejects])
async def test_whoever_decides_again_at_once_is_not_told_that_another_decided(
    desk: Desk, ask: Callable[[Desk, str], Awaitable[Asked]]
) -> None:
    for _ in range(ROUNDS):
        user = await desk.ledger.person(AMOUNT)

        answers = await ask_at_once(desk, await ask(desk, user))

        # An approved one may be paid by the time that the last one hears of it.
        assert len({one.withdrawal_id for one in answers}) == 1
        told = [state for _, state in await desk.told(answers[0].withdrawal_id)]
        assert told[1] == ("APPROVED" if ask is approves else "REJECTED")
        assert len(told) == len(set(told))


@pytest.mark.parametrize("ask", [settles, refunds, holds, posts, withdraws])
async def test_whoever_asks_again_at_once_hears_what_the_first_one_heard(
    desk: Desk, ask: Callable[[Desk, str], Awaitable[Asked]]
) -> None:
    for _ in range(ROUNDS):
        user = await desk.ledger.person(AMOUNT)

        first, *others = await ask_at_once(desk, await ask(desk, user))

        assert others == [first] * (CALLERS - 1)
        account = await desk.ledger.account(user)
        assert account.available == (money(AMOUNT) if ask is refunds else money(0))


@pytest.fixture
async def simulation(migrated_database: TestDatabase, valkey_url: str) -> AsyncIterator[Simulation]:
    async with open_simulation(migrated_database, valkey_url, 1) as simulation:
        yield simulation


class LateLook(PostgresLedgerStore):
    """Shows wallets when it is let."""

    def __init__(self, database: Database, clock: Clock) -> None:
        super().__init__(database, clock)
        self.is_asked, self.let = asyncio.Event(), asyncio.Event()

    async def wallets(self, reader: Reader, user_id: str) -> list[Account]:
        self.is_asked.set()
        await self.let.wait()
        return await super().wallets(reader, user_id)


async def test_a_request_is_not_refused_for_the_amount_that_it_holds_itself(
    simulation: Simulation,
) -> None:
    user = simulation.new_id()
    await simulation.do(flows.fund(simulation, user, 5_000))
    parts = (simulation.process or await simulation.start()).parts
    request = WithdrawalRequest(
        tenant_id=simulation.tenant_id,
        user_id=user,
        currency_code="EGP",
        amount_minor=3_000,
        payout_destination=Behaviour.PAYS,
        request_id=simulation.new_id(),
    )
    late = LateLook(simulation.database, simulation.clock)
    other = Withdrawals(
        store=PostgresWithdrawalStore(
            simulation.database, lambda one: withdrawal_messages.event_of(one, event_id=new_id())
        ),
        ledger=late,
        poster=parts.poster,
        clock=simulation.clock,
        minimum_minor=1,
    )

    overtaken = asyncio.create_task(other.request(request))
    await late.is_asked.wait()
    first = await parts.withdrawals.request(request)
    late.let.set()

    assert first.state is State.REQUESTED
    assert await overtaken == first
    assert await parts.withdrawals.request(request) == first

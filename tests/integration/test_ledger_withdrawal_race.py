"""The same request for a withdrawal twice at once: one answer, though the first holds the money."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from services.ledger.domain.accounts import Account
from services.ledger.domain.withdrawals import State
from services.ledger.operations.withdrawals import WithdrawalRequest
from services.ledger.ports import Reader
from tests.support import ledger_flows as flows
from tests.support.ledger_simulation import Simulation, open_simulation
from tests.support.payout_bridge import Behaviour
from tests.support.stack_fixtures import TestDatabase

pytestmark = pytest.mark.integration


@pytest.fixture
async def simulation(migrated_database: TestDatabase, valkey_url: str) -> AsyncIterator[Simulation]:
    async with open_simulation(migrated_database, valkey_url, 1) as simulation:
        yield simulation


async def test_a_request_is_not_refused_for_the_amount_that_it_holds_itself(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
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
    looks, go_on, wallets = asyncio.Event(), asyncio.Event(), parts.store.wallets

    async def look_later(reader: Reader, user_id: str) -> Sequence[Account]:
        if not looks.is_set():
            looks.set()
            await go_on.wait()
        return await wallets(reader, user_id)

    monkeypatch.setattr(parts.store, "wallets", look_later)
    overtaken = asyncio.create_task(parts.withdrawals.request(request))
    await looks.wait()
    first = await parts.withdrawals.request(request)
    go_on.set()

    assert first.state is State.REQUESTED
    assert await overtaken == first
    assert await parts.withdrawals.request(request) == first

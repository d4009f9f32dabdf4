"""Money through Envoy: services over the mesh, people at the edge, and what is killed."""

import asyncio
import uuid
from collections.abc import Sequence

import asyncpg
import grpc
import httpx
import pytest

from services.stack.environments import DEMO_TENANT_ID
from tests.support.e2e_edge import Edge, bearer, reasons_of
from tests.support.ledger_process import CLEARING, REVENUE, minor, money, pb, transfer, wallet
from tests.support.waiting import until
from wayfare.ledger.v1 import transfer_pb2
from wayfare.ledger.v1.ledger_service_pb2_grpc import LedgerServiceStub

pytestmark = pytest.mark.e2e

_AMOUNTS = """
SELECT count(*), coalesce(sum(amount_minor), 0)::bigint FROM ledger.transfers
WHERE transfer_id = ANY ($1::uuid[])
"""


async def create(
    stub: LedgerServiceStub, transfers: Sequence[transfer_pb2.NewTransfer]
) -> list[str]:
    """Make transfers of the demo tenant; return the reasons of those that were refused."""
    request = pb.CreateTransfersRequest(
        tenant_id=DEMO_TENANT_ID, transfers=transfers, request_id=str(uuid.uuid4())
    )
    answer = await stub.CreateTransfers(request, timeout=10)
    return [failure.reason for failure in answer.failures]


async def test_a_trip_is_settled_by_a_service_and_seen_by_its_people(edge: Edge) -> None:
    passenger, driver = str(uuid.uuid4()), str(uuid.uuid4())
    async with edge.mesh_channel("booking") as mesh:
        booking = LedgerServiceStub(mesh)
        assert await create(booking, [transfer(CLEARING, wallet(passenger), 10_000)]) == []
        settled = await booking.SettleTrip(
            pb.SettleTripRequest(
                tenant_id=DEMO_TENANT_ID,
                trip_id=str(uuid.uuid4()),
                passenger_user_id=passenger,
                driver_user_id=driver,
                method=pb.PAYMENT_METHOD_WALLET,
                fare=money(4_000),
                commission_basis_points=1_500,
                request_id=str(uuid.uuid4()),
            ),
            timeout=10,
        )

    headers = {"authorization": f"Bearer {edge.mint.token('PASSENGER', sub=passenger)}"}
    async with httpx.AsyncClient(base_url=edge.url, trust_env=False) as web:
        balance = await web.get("/v1/balance", headers=headers)
        entries = await web.get("/v1/entries", params={"currency_code": "EGP"}, headers=headers)
        other = await web.get("/v1/balance", params={"user_id": driver}, headers=headers)
    async with edge.channel() as channel:
        token = edge.mint.token("DRIVER", sub=driver)
        earned = await LedgerServiceStub(channel).GetBalance(
            pb.GetBalanceRequest(), metadata=bearer(token)
        )

    assert balance.json()["wallets"][0]["available"] == {
        "currencyCode": "EGP",
        "units": "60",
        "nanos": 0,
    }
    assert [line["kind"] for line in entries.json()["entries"]] == ["TRIP_FARE", "TEST"]
    assert other.status_code == 403
    assert reasons_of(other.json()["details"]) == [("ROLE_NOT_ALLOWED", "ledger.wayfare")]
    assert [minor(one.posted) for one in earned.wallets] == [3_400]
    assert settled.reference.startswith("trip/")


async def test_only_the_services_of_the_contract_move_money(edge: Edge) -> None:
    wanted = [transfer(CLEARING, wallet(str(uuid.uuid4())), 100)]
    async with edge.mesh_channel("location") as mesh:
        with pytest.raises(grpc.aio.AioRpcError) as by_location:
            await create(LedgerServiceStub(mesh), wanted)
    async with edge.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as by_edge:
            await create(LedgerServiceStub(channel), wanted)

    assert by_location.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert by_edge.value.code() is grpc.StatusCode.PERMISSION_DENIED


class Payers:
    """Pay again and again, each payment until it is acknowledged."""

    def __init__(self, edge: Edge, users: Sequence[str]) -> None:
        self._edge = edge
        self._users = users
        self.acknowledged: list[str] = []
        self.going = True

    async def pay(self, user: str) -> None:
        async with self._edge.mesh_channel("booking") as mesh:
            stub = LedgerServiceStub(mesh)
            while self.going:
                batch = [transfer(wallet(user), REVENUE, 1) for _ in range(5)]
                await self._until_acknowledged(stub, batch)

    async def _until_acknowledged(
        self, stub: LedgerServiceStub, batch: Sequence[transfer_pb2.NewTransfer]
    ) -> None:
        while True:
            try:
                assert await create(stub, batch) == []
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)
                continue
            self.acknowledged += [one.transfer_id for one in batch]
            return

    async def more(self, count: int) -> None:
        """Wait until so many more are acknowledged."""
        goal = len(self.acknowledged) + count
        await until(lambda: len(self.acknowledged) >= goal, seconds=60)


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_no_acknowledged_payment_is_lost_and_none_is_doubled_by_a_kill(
    private_edge: Edge,
) -> None:
    stack = private_edge.stack
    users = [str(uuid.uuid4()) for _ in range(4)]
    async with private_edge.mesh_channel("booking") as mesh:
        funds = [transfer(CLEARING, wallet(user), 1_000_000) for user in users]
        assert await create(LedgerServiceStub(mesh), funds) == []
    payers = Payers(private_edge, users)
    async with asyncio.TaskGroup() as group:
        for user in users:
            group.create_task(payers.pay(user))
        await payers.more(100)
        await stack.services["ledger-1"].kill()
        await stack.restart_part("ledger-1")
        await payers.more(100)
        postgres = stack.postgres
        assert hasattr(postgres, "kill")
        await postgres.kill()
        await stack.restart_part("postgres")
        await payers.more(100)
        payers.going = False

    connection = await asyncpg.connect(stack.postgres.dsn_for("postgres"))
    try:
        kept = await connection.fetchrow(_AMOUNTS, payers.acknowledged)
        taken = await connection.fetchval(
            "SELECT sum(1000000 - posted_minor)::bigint FROM ledger.accounts WHERE kind = 'WALLET'"
        )
        paid = await connection.fetchval(
            "SELECT count(*) FROM ledger.transfers WHERE amount_minor = 1"
        )
    finally:
        await connection.close()
    assert kept is not None
    assert tuple(kept) == (len(payers.acknowledged), len(payers.acknowledged))
    assert taken == paid == len(payers.acknowledged)

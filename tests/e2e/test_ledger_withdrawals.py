"""A withdrawal through Envoy as JSON: asked for, approved, paid, and gone from the balance."""

import asyncio
import uuid
from typing import Any

import httpx
import pytest

from services.stack.environments import DEMO_TENANT_ID
from tests.support.e2e_edge import Edge, reasons_of
from tests.support.ledger_process import CLEARING, pb, transfer, wallet
from wayfare.ledger.v1.ledger_service_pb2_grpc import LedgerServiceStub

pytestmark = pytest.mark.e2e


class Web:
    """Calls the edge as a person's browser does."""

    def __init__(self, edge: Edge, client: httpx.AsyncClient) -> None:
        self._edge = edge
        self._client = client

    async def call(self, method: str, path: str, role: str, user: str, **values: Any) -> Any:
        token = self._edge.mint.token(role, sub=user)
        headers = {"authorization": f"Bearer {token}"}
        return await self._client.request(method, path, headers=headers, **values)


async def test_money_is_requested_approved_paid_and_gone(edge: Edge) -> None:
    user, admin = str(uuid.uuid4()), str(uuid.uuid4())
    async with edge.mesh_channel("booking") as mesh:
        deposit = pb.CreateTransfersRequest(
            tenant_id=DEMO_TENANT_ID,
            transfers=[transfer(CLEARING, wallet(user), 10_000)],
            request_id=str(uuid.uuid4()),
        )
        assert not (await LedgerServiceStub(mesh).CreateTransfers(deposit, timeout=10)).failures
    async with httpx.AsyncClient(base_url=edge.url, trust_env=False) as client:
        web = Web(edge, client)
        body = {
            "amount": {"currencyCode": "EGP", "units": "40"},
            "payoutDestination": "bank_account-1",
            "requestId": str(uuid.uuid4()),
        }
        requested = await web.call("POST", "/v1/withdrawals", "PASSENGER", user, json=body)
        again = await web.call("POST", "/v1/withdrawals", "PASSENGER", user, json=body)
        held = await web.call("GET", "/v1/balance", "PASSENGER", user)
        withdrawal_id = requested.json()["withdrawalId"]
        path = f"/v1/withdrawals/{withdrawal_id}:approve"
        decision = {"requestId": str(uuid.uuid4())}
        by_passenger = await web.call("POST", path, "PASSENGER", user, json=decision)
        approved = await web.call("POST", path, "ADMIN", admin, json=decision)
        async with asyncio.timeout(20):
            while True:
                listed = await web.call("GET", "/v1/withdrawals", "PASSENGER", user)
                (withdrawal,) = listed.json()["withdrawals"]
                if withdrawal["state"] == "WITHDRAWAL_STATE_PAID":
                    break
                await asyncio.sleep(0.05)
        balance = await web.call("GET", "/v1/balance", "PASSENGER", user)
        entries = await web.call(
            "GET", "/v1/entries", "PASSENGER", user, params={"currency_code": "EGP"}
        )
        report = await web.call("GET", "/v1/daily-report", "BUSINESS", admin)
        no_date = await web.call(
            "GET",
            "/v1/daily-report",
            "BUSINESS",
            admin,
            params={"date.year": 2026, "date.month": 2, "date.day": 30},
        )

    assert requested.json() == again.json()
    assert requested.json()["state"] == "WITHDRAWAL_STATE_REQUESTED"
    assert held.json()["wallets"][0]["available"]["units"] == "60"
    assert by_passenger.status_code == 403
    assert approved.status_code == 200
    assert approved.json()["decidedByUserId"] == admin
    assert withdrawal["payoutId"].startswith("demo-")
    (after,) = balance.json()["wallets"]
    assert (after["posted"]["units"], after["pendingOut"]["units"]) == ("60", "0")
    assert [line["kind"] for line in entries.json()["entries"]] == ["WITHDRAWAL", "TEST"]
    assert {"ACCOUNT_KIND_WALLET", "ACCOUNT_KIND_WITHDRAWALS"} <= {
        one["kind"] for one in report.json()["accounts"]
    }
    assert no_date.status_code == 400
    assert reasons_of(no_date.json()["details"]) == [("DATE_INVALID", "ledger.wayfare")]

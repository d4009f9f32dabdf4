"""The whole way of money through Envoy, from a gateway's webhook to a proof that anybody checks."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest
from google.protobuf import json_format

from services.stack.migrations import role_of
from services.stack.payment_gateways import News, Payment, kashier_post, payment_accounts
from tests.support.e2e_edge import Edge, reasons_of
from tests.support.ledger_process import money, pb
from wayfare.ledger.v1 import audit_pb2
from wayfare.ledger.v1.ledger_service_pb2_grpc import LedgerServiceStub
from wayfare_client import verify_receipt

pytestmark = pytest.mark.e2e

_TABLES = ("accounts", "entries", "transfers", "deposits", "withdrawals")


class Operator:
    """An operator of the test's own, its people as they speak JSON, and its database role."""

    def __init__(self, edge: Edge, web: httpx.AsyncClient) -> None:
        self.edge = edge
        self.tenant_id = str(uuid.uuid4())
        self.passenger, self.driver, self.stranger, self.admin = (
            str(uuid.uuid4()) for _ in range(4)
        )
        self._web = web

    async def ask(self, method: str, path: str, role: str, user: str, **values: Any) -> Any:
        token = self.edge.mint.token(role, sub=user, tenant_id=self.tenant_id)
        headers = {"authorization": f"Bearer {token}"}
        return await self._web.request(method, path, headers=headers, **values)

    async def found(self, path: str, role: str, user: str, **values: Any) -> dict[str, Any]:
        answer = await self.ask("GET", path, role, user, **values)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def deposit(self, units: int) -> dict[str, Any]:
        """Deposit as the passenger's app does; the gateway's webhook comes as JSON, signed."""
        body = {
            "gateway": "GATEWAY_KASHIER",
            "amount": {"currencyCode": "EGP", "units": units},
            "requestId": str(uuid.uuid4()),
        }
        made = await self.ask("POST", "/v1/deposits", "PASSENGER", self.passenger, json=body)
        deposit_id = made.json()["deposit"]["depositId"]
        news = News(
            order_id=deposit_id,
            payment_id=f"TX-{deposit_id[:8]}",
            payment=Payment.PAID,
            amount=f"{units}.00",
            currency_code="EGP",
        )
        post = kashier_post(payment_accounts(self.edge.stack.secrets), news)
        told = await self._web.post(post.path, content=post.body, headers=post.headers)
        assert told.json() == {"outcome": "WEBHOOK_OUTCOME_APPLIED"}, told.text
        return await self.found(f"/v1/deposits/{deposit_id}", "PASSENGER", self.passenger)

    async def available(self, user: str, role: str) -> str:
        balance = await self.found("/v1/balance", role, user)
        (wallet,) = balance["wallets"]
        return str(wallet["available"]["units"])

    async def settle(self, units: int) -> str:
        """Settle a trip as the service of bookings does, over mutual TLS; return the transfer."""
        request = pb.SettleTripRequest(
            tenant_id=self.tenant_id,
            trip_id=str(uuid.uuid4()),
            passenger_user_id=self.passenger,
            driver_user_id=self.driver,
            method=pb.PAYMENT_METHOD_WALLET,
            fare=money(units * 100),
            commission_basis_points=1_500,
            request_id=str(uuid.uuid4()),
        )
        async with self.edge.mesh_channel("booking") as mesh:
            settled = await LedgerServiceStub(mesh).SettleTrip(request, timeout=10)
        return settled.transfer_id

    async def withdraw(self, units: int) -> dict[str, Any]:
        """Withdraw as the driver does, with an ADMIN's approval; wait until it is paid."""
        body = {
            "amount": {"currencyCode": "EGP", "units": units},
            "payoutDestination": "bank_account-1",
            "requestId": str(uuid.uuid4()),
        }
        asked = await self.ask("POST", "/v1/withdrawals", "DRIVER", self.driver, json=body)
        path = f"/v1/withdrawals/{asked.json()['withdrawalId']}:approve"
        decision = {"requestId": str(uuid.uuid4())}
        by_driver = await self.ask("POST", path, "DRIVER", self.driver, json=decision)
        assert by_driver.status_code == 403
        approved = await self.ask("POST", path, "ADMIN", self.admin, json=decision)
        assert approved.status_code == 200, approved.text
        async with asyncio.timeout(20):
            while True:
                listed = await self.found("/v1/withdrawals", "DRIVER", self.driver)
                (withdrawal,) = listed["withdrawals"]
                if withdrawal["state"] == "WITHDRAWAL_STATE_PAID":
                    return dict(withdrawal)
                await asyncio.sleep(0.05)

    async def until_sealed(self, count: int) -> dict[str, Any]:
        """Wait until so many transfers are sealed; return what walking the chain finds."""
        async with asyncio.timeout(30):
            while True:
                walked = await self.found("/v1/chain:verify", "ADMIN", self.admin)
                if walked["transferCount"] == str(count):
                    return walked
                await asyncio.sleep(0.2)

    async def rows_seen(self, role: str, user: str) -> dict[str, int]:
        """Return how many rows of each table the service's own role sees for somebody."""
        dsn = self.edge.stack.postgres.dsn_for(role_of("ledger"))
        connection = await asyncpg.connect(dsn)
        try:
            settings = {"tenant_id": self.tenant_id, "role": role, "user_id": user}
            for name, value in settings.items():
                await connection.execute("SELECT set_config($1, $2, false)", f"app.{name}", value)
            return {
                table: await connection.fetchval(f"SELECT count(*) FROM ledger.{table}")
                for table in _TABLES
            }
        finally:
            await connection.close()


@pytest.fixture
async def operator(edge: Edge) -> AsyncIterator[Operator]:
    async with httpx.AsyncClient(base_url=edge.url, trust_env=False, timeout=30) as web:
        yield Operator(edge, web)


async def test_money_comes_in_pays_a_trip_goes_out_and_is_proved(operator: Operator) -> None:
    deposit = await operator.deposit(150)
    assert await operator.available(operator.passenger, "PASSENGER") == "150"
    fare = await operator.settle(40)
    statement = await operator.found(
        "/v1/entries", "PASSENGER", operator.passenger, params={"currency_code": "EGP"}
    )
    withdrawal = await operator.withdraw(30)
    earned = await operator.available(operator.driver, "DRIVER")

    reconciled = await operator.ask(
        "POST",
        "/v1/reconciliations:run",
        "ADMIN",
        operator.admin,
        json={"requestId": str(uuid.uuid4())},
    )
    # Deposit, fare, hold and payout.
    chain = await operator.until_sealed(4)
    path = f"/v1/transfers/{fare}/receipt"
    receipt = await operator.found(path, "ADMIN", operator.admin)
    for_passenger = await operator.found(path, "PASSENGER", operator.passenger)

    assert deposit["state"] == "DEPOSIT_STATE_SUCCEEDED"
    assert [
        (one["kind"], one["amount"]["units"], one["balance"]["units"])
        for one in statement["entries"]
    ] == [("TRIP_FARE", "-40", "110"), ("DEPOSIT", "150", "150")]
    assert statement["entries"][1]["transferId"] == deposit["transferId"]
    # 34 earned after the commission.
    assert (earned, withdrawal["payoutId"][:5]) == ("4", "demo-")
    assert reconciled.status_code == 200, reconciled.text
    report = reconciled.json()
    assert (len(report["checks"]), report["transferCount"]) == (4, "4")
    assert report.get("discrepancies", []) == []
    assert chain.get("faults", []) == []
    proof = json_format.ParseDict(receipt, audit_pb2.Receipt())
    verify_receipt(proof)
    assert proof.transfer.transfer_id == fare
    # What others have of the fare is not the passenger's to see.
    own_proof = json_format.ParseDict(for_passenger, audit_pb2.Receipt())
    verify_receipt(own_proof, without_content=True)
    assert own_proof.leaf_hash == proof.leaf_hash
    assert not own_proof.leaf_content


async def test_nobody_reads_anothers_wallet_by_rpc_nor_by_sql(operator: Operator) -> None:
    await operator.deposit(100)
    fare = await operator.settle(40)
    await operator.withdraw(10)

    wallet = {"account.kind": "ACCOUNT_KIND_WALLET", "currency_code": "EGP"}
    refused = [
        await operator.ask("GET", path, "PASSENGER", operator.stranger, params=params)
        for path, params in (
            ("/v1/balance", {"user_id": operator.passenger}),
            ("/v1/entries", {**wallet, "account.subject": operator.passenger}),
            ("/v1/withdrawals", {"user_id": operator.driver}),
            (f"/v1/transfers/{fare}", {}),
            (f"/v1/transfers/{fare}/receipt", {}),
        )
    ]
    own = await operator.found("/v1/balance", "PASSENGER", operator.stranger)

    assert [answer.status_code for answer in refused] == [403, 403, 403, 404, 404]
    assert {reasons_of(answer.json()["details"])[0][0] for answer in refused} == {
        "ROLE_NOT_ALLOWED",
        "TRANSFER_UNKNOWN",
    }
    assert own.get("wallets", []) == []
    assert set((await operator.rows_seen("PERSON", operator.stranger)).values()) == {0}
    assert set((await operator.rows_seen("", "")).values()) == {0}
    assert await operator.rows_seen("PERSON", operator.passenger) == {
        "accounts": 1,
        "entries": 2,
        "transfers": 2,
        "deposits": 1,
        "withdrawals": 0,
    }

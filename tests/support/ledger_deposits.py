"""Makes deposits, tells of them as the gateways do, and looks at what came of it."""

import asyncio
from dataclasses import dataclass
from typing import Any

import asyncpg
import grpc
import pytest
from google.api import httpbody_pb2
from pydantic import SecretStr

from services.stack.payment_gateways import (
    News,
    Payment,
    PaymentAccounts,
    SignedPost,
    kashier_post,
    payhere_post,
)
from tests.support.identity_process import Refusal, refusal_of
from tests.support.ledger_process import (
    LedgerProcess,
    minor,
    money,
    pb,
)
from tests.support.location_values import TENANT, new_id
from tests.support.stack_fixtures import TestDatabase
from wayfare.event.v1.envelope_pb2 import Envelope
from wayfare.ledger.v1 import deposit_pb2, events_pb2
from wayfare.ledger.v1.ledger_service_pb2_grpc import LedgerServiceStub

ACCOUNTS = PaymentAccounts(payhere_secret="payhere-test-secret", kashier_secret="kashier-test-key")
PAYHERE, KASHIER = deposit_pb2.GATEWAY_PAYHERE, deposit_pb2.GATEWAY_KASHIER
CURRENCIES = {PAYHERE: "LKR", KASHIER: "EGP"}
both_gateways = pytest.mark.parametrize("gateway", [PAYHERE, KASHIER], ids=["payhere", "kashier"])
SETTINGS: dict[str, Any] = {
    "ledger_payment_gateways": SecretStr(ACCOUNTS.setting()),
    "ledger_deposit_work_seconds": 0.05,
    "ledger_webhook_sum_seconds": 0.05,
}


def outcome(name: str) -> "pb.WebhookOutcome.ValueType":
    return pb.WebhookOutcome.Value(f"WEBHOOK_OUTCOME_{name}")


def state(name: str) -> deposit_pb2.DepositState.ValueType:
    return deposit_pb2.DepositState.Value(f"DEPOSIT_STATE_{name}")


@dataclass
class Teller:
    """Makes deposits, tells of them as a gateway would, and looks at what came of it."""

    ledger: LedgerProcess
    database: TestDatabase

    def request(self, gateway: Any, **values: Any) -> pb.CreateDepositRequest:
        return pb.CreateDepositRequest(
            **{
                "gateway": gateway,
                "amount": money(10_000, CURRENCIES[gateway]),
                "request_id": new_id(),
                **values,
            }
        )

    async def deposit(self, gateway: Any = KASHIER, **values: Any) -> deposit_pb2.Deposit:
        user = self.ledger.bearer("PASSENGER", values.pop("user", "") or new_id())
        answer = await self.ledger.call("CreateDeposit", self.request(gateway, **values), user)
        assert isinstance(answer, pb.CreateDepositResponse)
        return answer.deposit

    def news(
        self, deposit: deposit_pb2.Deposit, payment: Payment = Payment.PAID, **values: Any
    ) -> News:
        usual = {
            "order_id": deposit.deposit_id,
            "payment_id": f"TX-{deposit.deposit_id[:8]}",
            "payment": payment,
            "amount": "100.00",
            "currency_code": deposit.amount.currency_code,
        }
        return News(**{**usual, **values})

    def post(
        self, deposit: deposit_pb2.Deposit, payment: Payment = Payment.PAID, **values: Any
    ) -> SignedPost:
        news = self.news(deposit, payment, **values)
        by_kashier = deposit.gateway == KASHIER
        return kashier_post(ACCOUNTS, news) if by_kashier else payhere_post(ACCOUNTS, news)

    async def send(
        self, post: SignedPost, *, ledger: LedgerProcess | None = None
    ) -> "pb.WebhookOutcome.ValueType":
        stub = LedgerServiceStub((ledger or self.ledger).channel)
        request = pb.ReceivePaymentWebhookRequest(
            gateway=post.path.rpartition("/")[2],
            payload=httpbody_pb2.HttpBody(
                content_type=post.headers["content-type"], data=post.body
            ),
        )
        headers = [(name, text) for name, text in post.headers.items() if name.startswith("x-")]
        # Each from an address of its own: the limit per address has tests of its own.
        headers.append(("x-forwarded-for", f"10.1.{new_id()[:2]}.{new_id()[:2]}"))
        answer = await stub.ReceivePaymentWebhook(request, metadata=headers, timeout=30)
        return answer.outcome

    async def refused(self, post: SignedPost) -> Refusal:
        try:
            answer = await self.send(post)
        except grpc.aio.AioRpcError as error:
            return refusal_of(error)
        raise AssertionError(f"it was taken: {answer}")

    async def tell(
        self, deposit: deposit_pb2.Deposit, payment: Payment = Payment.PAID, **values: Any
    ) -> "pb.WebhookOutcome.ValueType":
        return await self.send(self.post(deposit, payment, **values))

    async def now(self, deposit: deposit_pb2.Deposit) -> deposit_pb2.Deposit:
        request = pb.GetDepositRequest(deposit_id=deposit.deposit_id, tenant_id=TENANT)
        answer = await self.ledger.call("GetDeposit", request)
        assert isinstance(answer, deposit_pb2.Deposit)
        return answer

    async def state(self, deposit: deposit_pb2.Deposit) -> str:
        found = (await self.now(deposit)).state
        return deposit_pb2.DepositState.Name(found).removeprefix("DEPOSIT_STATE_")

    async def until_state(self, deposit: deposit_pb2.Deposit, wanted: str) -> None:
        async with asyncio.timeout(15):
            while await self.state(deposit) != wanted:
                await asyncio.sleep(0.02)

    async def balance(self, deposit: deposit_pb2.Deposit) -> int:
        request = pb.GetBalanceRequest(user_id=deposit.user_id, tenant_id=TENANT)
        answer = await self.ledger.call("GetBalance", request)
        return sum(minor(one.posted) for one in answer.wallets)

    async def rows(self, query: str, *values: Any) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.database.admin_dsn)
        try:
            return list(await connection.fetch(query, *values))
        finally:
            await connection.close()

    async def audit(self) -> list[tuple[str, str, bool]]:
        rows = await self.rows(
            "SELECT outcome, reason, is_verified FROM ledger.payment_webhooks ORDER BY line_id"
        )
        return [tuple(row) for row in rows]

    async def states_told(self, deposit: deposit_pb2.Deposit) -> list[str]:
        """Return the states of the deposit's events, whose versions have no gap."""
        rows = await self.rows(
            "SELECT aggregate_version, envelope FROM ledger.events"
            " WHERE aggregate_type = 'deposit' AND aggregate_id = $1 ORDER BY 1",
            deposit.deposit_id,
        )
        assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
        told = []
        for row in rows:
            changed = events_pb2.DepositChanged()
            assert Envelope.FromString(row[1]).payload.Unpack(changed)
            name = deposit_pb2.DepositState.Name(changed.deposit.state)
            told.append(name.removeprefix("DEPOSIT_STATE_"))
        return told

    async def sums(self) -> dict[str, int]:
        """Return what each kind of account has, in minor units."""
        rows = await self.rows(
            "SELECT a.kind, sum(e.amount_minor)::bigint FROM ledger.entries e"
            " JOIN ledger.accounts a USING (account_id) WHERE e.layer = 'POSTED' GROUP BY 1"
        )
        found = {row[0]: row[1] for row in rows}
        assert sum(found.values()) == 0
        return found

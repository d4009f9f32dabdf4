"""LedgerService in the test's own process, wired as in production, on a Unix socket."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message
from google.type import money_pb2
from pydantic import SecretStr

from services.ledger.app import wire
from services.ledger.settings import LedgerSettings
from services.shared.clock import SystemClock
from services.shared.rpc.process import serve
from services.shared.rpc.server import RpcServer
from tests.support.identity_process import Refusal, refusal_of
from tests.support.location_process import OneApiKey
from tests.support.location_tokens import TokenMint
from tests.support.location_values import TENANT, new_id
from tests.support.waiting import until
from wayfare.ledger.v1 import account_pb2, ledger_service_pb2, transfer_pb2
from wayfare.ledger.v1.ledger_service_pb2_grpc import LedgerServiceStub

Metadata = Sequence[tuple[str, str]]
pb = ledger_service_pb2
BOOKING: Metadata = (("x-forwarded-client-cert", "By=x;URI=spiffe://wayfare/booking"),)
CURRENCY = "EGP"


def money(amount_minor: int, currency_code: str = CURRENCY) -> money_pb2.Money:
    """Return an amount of a currency with two decimals."""
    sign = -1 if amount_minor < 0 else 1
    units, minor = divmod(abs(amount_minor), 100)
    return money_pb2.Money(
        currency_code=currency_code, units=sign * units, nanos=sign * minor * 10_000_000
    )


def minor(amount: money_pb2.Money) -> int:
    """Return an amount of a currency with two decimals in minor units."""
    return amount.units * 100 + amount.nanos // 10_000_000


def wallet(user_id: str) -> account_pb2.AccountName:
    """Return the name of a person's wallet."""
    return account_pb2.AccountName(kind=account_pb2.ACCOUNT_KIND_WALLET, subject=user_id)


CLEARING = account_pb2.AccountName(
    kind=account_pb2.ACCOUNT_KIND_GATEWAY_CLEARING, subject="PAYHERE"
)
REVENUE = account_pb2.AccountName(kind=account_pb2.ACCOUNT_KIND_REVENUE)


def posting(
    account: account_pb2.AccountName, amount_minor: int, currency_code: str = CURRENCY
) -> transfer_pb2.Posting:
    """Return a posting: a credit if the amount is positive, else a debit."""
    side = transfer_pb2.SIDE_CREDIT if amount_minor > 0 else transfer_pb2.SIDE_DEBIT
    return transfer_pb2.Posting(
        account=account, side=side, amount=money(abs(amount_minor), currency_code)
    )


def transfer(
    source: account_pb2.AccountName,
    target: account_pb2.AccountName,
    amount_minor: int,
    **values: Any,
) -> transfer_pb2.NewTransfer:
    """Return a transfer of one debit and one credit."""
    return transfer_pb2.NewTransfer(
        **{
            "transfer_id": new_id(),
            "kind": "TEST",
            "postings": [posting(source, -amount_minor), posting(target, amount_minor)],
            **values,
        }
    )


@dataclass
class LedgerProcess:
    """A running service and ways to call it."""

    rpc: RpcServer
    settings: LedgerSettings
    channel: grpc.aio.Channel
    mint: TokenMint

    def bearer(self, role: str, user_id: str = "", **values: Any) -> Metadata:
        token = self.mint.token(role, user_id=user_id, **values)
        return (("authorization", f"Bearer {token}"), ("x-forwarded-for", "10.0.0.1"))

    async def call(self, method: str, request: Message, metadata: Metadata = BOOKING) -> Any:
        stub = LedgerServiceStub(self.channel)
        return await getattr(stub, method)(request, metadata=metadata, timeout=30)

    async def refused(self, method: str, request: Message, metadata: Metadata = BOOKING) -> Refusal:
        try:
            answer = await self.call(method, request, metadata)
        except grpc.aio.AioRpcError as error:
            return refusal_of(error)
        raise AssertionError(f"{method} was not refused but answered {answer}")

    async def reason(self, method: str, request: Message) -> str:
        """Call as booking; return why it was refused, "" if it was not."""
        try:
            await self.call(method, request)
        except grpc.aio.AioRpcError as error:
            return refusal_of(error).reason
        return ""

    async def create(self, *transfers: transfer_pb2.NewTransfer) -> list[str]:
        """Make transfers; return the reasons of those that were refused, "" of the others."""
        request = pb.CreateTransfersRequest(
            tenant_id=TENANT, transfers=transfers, request_id=new_id()
        )
        answer = await self.call("CreateTransfers", request)
        reasons = [""] * len(transfers)
        for failure in answer.failures:
            assert failure.transfer_id == transfers[failure.index].transfer_id
            reasons[failure.index] = failure.reason
        return reasons

    async def person(self, amount_minor: int = 0) -> str:
        """Return a new user who has so much."""
        user_id = new_id()
        if amount_minor:
            assert await self.create(transfer(CLEARING, wallet(user_id), amount_minor)) == [""]
        return user_id

    async def account(self, user_id: str) -> account_pb2.Account:
        """Return a person's wallet."""
        request = pb.GetBalanceRequest(user_id=user_id, tenant_id=TENANT)
        answer: pb.GetBalanceResponse = await self.call("GetBalance", request)
        (found,) = answer.wallets
        return found

    async def balance(self, user_id: str) -> int:
        """Return what is posted to a person's wallet, in minor units."""
        return minor((await self.account(user_id)).posted)

    async def hold(self, user_id: str, amount_minor: int, **values: Any) -> str:
        """Make a pending transfer from a person to the operator; return its id."""
        wanted = transfer(wallet(user_id), REVENUE, amount_minor, pending=True, **values)
        assert await self.create(wanted) == [""]
        return wanted.transfer_id

    async def entries(self, user_id: str, **values: Any) -> pb.ListEntriesResponse:
        """Return a page of a person's statement."""
        request = pb.ListEntriesRequest(currency_code=CURRENCY, **values)
        answer: pb.ListEntriesResponse = await self.call(
            "ListEntries", request, self.bearer("PASSENGER", user_id)
        )
        return answer


@asynccontextmanager
async def running_ledger(
    folder: Path, *, dsn: str, valkey_url: str, mint: TokenMint, **values: Any
) -> AsyncIterator[LedgerProcess]:
    """Run the service until the block ends; it serves when the block begins."""
    jwks = folder / f"{uuid.uuid4().hex[:8]}.json"
    mint.write_jwks(jwks)
    settings = LedgerSettings(
        **{
            "listen": f"unix:{folder}/{uuid.uuid4().hex[:8]}.sock",
            "database_url": SecretStr(dsn),
            "valkey_url": SecretStr(valkey_url),
            "jwks_file": jwks,
            "drain_seconds": 2.0,
            "ledger_expire_seconds": 0.05,
            "ledger_fold_seconds": 0.05,
            "ledger_seal_seconds": 0.05,
            **values,
        }
    )
    async with AsyncExitStack() as stack:
        rpc, background = await wire(stack, settings, clock=SystemClock(), api_keys=OneApiKey())
        stop = asyncio.Event()
        serving = asyncio.create_task(serve(rpc, background, stop))
        channel = grpc.aio.insecure_channel(settings.listen)
        try:
            await until(lambda: serving.done() or len(rpc.monitor.answers) == 2)
            yield LedgerProcess(rpc, settings, channel, mint)
        finally:
            await channel.close()
            stop.set()
            await serving

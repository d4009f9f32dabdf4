"""`wayfare pay`: plays the payment gateway for a deposit of the local stack."""

import asyncio
import uuid
from dataclasses import dataclass
from typing import Annotated

import grpc.aio
import httpx
import typer
from google.type import money_pb2

from services.stack.command.console import console
from services.stack.environments import DEMO_TENANT_ID
from services.stack.errors import StackError
from services.stack.home import Home
from services.stack.payment_gateways import (
    News,
    Payment,
    SignedPost,
    kashier_post,
    payhere_post,
    payment_accounts,
)
from services.stack.replay.access import StackAccess, access_to_home
from wayfare.ledger.v1 import deposit_pb2, ledger_service_pb2
from wayfare.ledger.v1.ledger_service_pb2_grpc import LedgerServiceStub

_SECONDS = 15.0
_NANOS_PER_CENT = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """Is what the person at the terminal wants the gateway to tell."""

    deposit_id: str
    tenant_id: str
    payment: Payment
    amount: str
    payment_id: str
    times: int
    forged: bool


def pay(
    deposit_id: Annotated[str, typer.Argument(help="Id of the deposit, as CreateDeposit gave it.")],
    *,
    tell: Annotated[Payment, typer.Option(help="What the gateway tells of.")] = Payment.PAID,
    times: Annotated[
        int, typer.Option(min=1, max=100, help="Post the same so often; it counts once.")
    ] = 1,
    amount: Annotated[
        str, typer.Option(help="Another amount than was asked for, as 10.00; it is refused.")
    ] = "",
    payment_id: Annotated[
        str, typer.Option(help="The gateway's id of the payment; the same for the same deposit.")
    ] = "",
    forged: Annotated[
        bool, typer.Option("--forged", help="Change the amount after signing; it is refused.")
    ] = False,
    tenant: Annotated[str, typer.Option(help="Id of the operator.")] = DEMO_TENANT_ID,
) -> None:
    """Pay a deposit of the running stack as its gateway would: post a signed webhook to the edge.

    No gateway is called. The exit code is 1 when a webhook is refused.

    First make a deposit, by KASHIER in EGP or by PAYHERE in LKR, and look at the wallet afterwards:

    `wayfare login --admin`

    `curl 127.0.0.1:8080/v1/deposits -H "authorization: Bearer $(wayfare token)" -d '{"gateway":
    "GATEWAY_KASHIER", "amount": {"currencyCode": "EGP", "units": 150}, "requestId":
    "'$(uuidgen)'"}'`

    `curl 127.0.0.1:8080/v1/balance -H "authorization: Bearer $(wayfare token)"`

    Example: wayfare pay 0198c0de-0000-8000-8000-000000000001 --times 3
    """
    home = Home()
    access = access_to_home(home)
    wish = _Wish(
        deposit_id=deposit_id,
        tenant_id=tenant,
        payment=tell,
        amount=amount,
        payment_id=payment_id,
        times=times,
        forged=forged,
    )
    if not asyncio.run(_pay(home, access, wish)):
        raise typer.Exit(1)


async def _pay(home: Home, access: StackAccess, wish: _Wish) -> bool:
    async with access.mesh_channel() as channel:
        stub = LedgerServiceStub(channel)
        deposit = await _deposit(stub, wish)
        post = _signed(home, deposit, wish)
        accepted = True
        async with httpx.AsyncClient(
            base_url=f"http://{access.edge_address}", timeout=_SECONDS, trust_env=False
        ) as web:
            for _ in range(wish.times):
                answer = await web.post(post.path, content=post.body, headers=post.headers)
                accepted &= _tell(answer)
        deposit = await _deposit(stub, wish)
    state = deposit_pb2.DepositState.Name(deposit.state).removeprefix("DEPOSIT_STATE_")
    console.print(f"  the deposit of {_decimal(deposit.amount)} is now {state}")
    return accepted


async def _deposit(stub: LedgerServiceStub, wish: _Wish) -> deposit_pb2.Deposit:
    request = ledger_service_pb2.GetDepositRequest(
        deposit_id=wish.deposit_id, tenant_id=wish.tenant_id
    )
    try:
        return await stub.GetDeposit(request, timeout=_SECONDS)
    except grpc.aio.AioRpcError as error:
        raise StackError(f"The deposit {wish.deposit_id}: {error.details()}") from error


def _signed(home: Home, deposit: deposit_pb2.Deposit, wish: _Wish) -> SignedPost:
    made_up = f"TX-{uuid.uuid5(uuid.NAMESPACE_OID, deposit.deposit_id).hex[:12]}"
    asked = _decimal(deposit.amount).partition(" ")[0]
    news = News(
        order_id=deposit.deposit_id,
        payment_id=wish.payment_id or made_up,
        payment=wish.payment,
        amount=wish.amount or asked,
        currency_code=deposit.amount.currency_code,
    )
    accounts = payment_accounts(home.secrets)
    by_kashier = deposit.gateway == deposit_pb2.GATEWAY_KASHIER
    post = kashier_post(accounts, news) if by_kashier else payhere_post(accounts, news)
    if not wish.forged:
        return post
    body = post.body.replace(news.amount.encode(), f"9{news.amount}".encode())
    return SignedPost(path=post.path, body=body, headers=post.headers)


def _tell(answer: httpx.Response) -> bool:
    try:
        document = answer.json()
    except ValueError as error:
        raise StackError(f"The edge answers {answer.status_code} and no JSON.") from error
    if answer.status_code == httpx.codes.OK:
        outcome = str(document["outcome"]).removeprefix("WEBHOOK_OUTCOME_")
        console.print(f"[green]✓[/] the webhook was taken: {outcome}")
        return True
    reasons = [detail["reason"] for detail in document.get("details", ()) if "reason" in detail]
    console.print(f"[red]✗[/] the webhook was refused: {', '.join(reasons)}")
    console.print(f"  {document.get('message', '')}")
    return False


def _decimal(amount: money_pb2.Money) -> str:
    """Return an amount of LKR or EGP, which have two decimals."""
    return f"{amount.units}.{amount.nanos // _NANOS_PER_CENT:02d} {amount.currency_code}"

"""A deposit through Envoy, as an app makes it and as the gateways tell of it."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from typer.testing import CliRunner

from services.stack.command import application
from services.stack.environments import DEMO_TENANT_ID
from services.stack.payment_gateways import Payment, payment_accounts
from tests.support.e2e_edge import Edge, reasons_of
from tests.support.gateway_double import GatewayDouble
from tests.support.ledger_process import money, pb
from tests.support.waiting import until
from wayfare.ledger.v1 import deposit_pb2
from wayfare.ledger.v1.ledger_service_pb2_grpc import LedgerServiceStub

pytestmark = pytest.mark.e2e

HOSTS = {"KASHIER": "checkout.kashier.io", "PAYHERE": "sandbox.payhere.lk"}
both_gateways = pytest.mark.parametrize(
    ("gateway", "code"), [("PAYHERE", "LKR"), ("KASHIER", "EGP")], ids=["payhere", "kashier"]
)


class App:
    """Is a passenger's app, which speaks JSON."""

    def __init__(self, edge: Edge, web: httpx.AsyncClient) -> None:
        self._web = web
        token = edge.mint.token("PASSENGER", sub=str(uuid.uuid4()))
        self._headers = {"authorization": f"Bearer {token}"}

    async def deposit(self, gateway: str, code: str) -> dict[str, Any]:
        body = {
            "gateway": f"GATEWAY_{gateway}",
            "amount": {"currencyCode": code, "units": "150", "nanos": 500_000_000},
            "returnUrl": "https://example.org/back",
            "requestId": str(uuid.uuid4()),
        }
        answer = await self._web.post("/v1/deposits", json=body, headers=self._headers)
        assert answer.status_code == 200, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def state(self, deposit_id: str) -> str:
        """Read a deposit's state; UNAVAILABLE while Envoy has not found the ledger again."""
        answer = await self._web.get(f"/v1/deposits/{deposit_id}", headers=self._headers)
        if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            return "UNAVAILABLE"
        assert answer.status_code == 200, answer.text
        return str(answer.json()["state"]).removeprefix("DEPOSIT_STATE_")

    async def balance(self) -> list[tuple[str, str, int]]:
        answer = await self._web.get("/v1/balance", headers=self._headers)
        assert answer.status_code == 200, answer.text
        posted = [one["posted"] for one in answer.json()["wallets"]]
        return [(one["currencyCode"], one["units"], one["nanos"]) for one in posted]


def outcome_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["outcome"]).removeprefix("WEBHOOK_OUTCOME_")


@pytest.fixture
async def double(edge: Edge) -> AsyncIterator[GatewayDouble]:
    async with GatewayDouble(payment_accounts(edge.stack.secrets)) as running:
        yield running


@pytest.fixture
async def web(edge: Edge) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=edge.url, trust_env=False, timeout=20) as client:
        yield client


@both_gateways
async def test_a_deposit_is_paid_at_the_gateway_and_in_the_wallet_once(
    edge: Edge, web: httpx.AsyncClient, double: GatewayDouble, gateway: str, code: str
) -> None:
    app = App(edge, web)
    made = await app.deposit(gateway, code)
    deposit_id, checkout = made["deposit"]["depositId"], made["checkout"]
    assert urlsplit(checkout["url"]).netloc == HOSTS[gateway]

    assert await double.check_out(checkout["url"], checkout["formFields"]) == 200
    assert double.way_back(deposit_id).startswith("https://example.org/back?")
    # Coming back proves nothing.
    assert (await app.balance(), await app.state(deposit_id)) == ([], "PENDING")
    forged = await double.tell(deposit_id, wrongly=True)
    outcomes = [
        outcome_of(await double.tell(deposit_id, payment))
        for payment in (Payment.PENDING, Payment.PAID, Payment.PAID, Payment.FAILED)
    ]

    assert forged.status_code == 403
    assert reasons_of(forged.json()["details"]) == [("SIGNATURE_INVALID", "ledger.wayfare")]
    assert outcomes == ["IGNORED", "APPLIED", "DUPLICATE", "IGNORED"]
    assert await app.balance() == [(code, "150", 500_000_000)]
    assert await app.state(deposit_id) == "SUCCEEDED"


async def test_a_charge_back_is_told_through_the_edge(
    edge: Edge, web: httpx.AsyncClient, double: GatewayDouble
) -> None:
    app = App(edge, web)
    made = await app.deposit("PAYHERE", "LKR")
    deposit_id = made["deposit"]["depositId"]
    await double.check_out(made["checkout"]["url"], made["checkout"]["formFields"])
    await double.tell(deposit_id)

    assert outcome_of(await double.tell(deposit_id, Payment.CHARGED_BACK)) == "APPLIED"

    assert await app.state(deposit_id) == "CHARGED_BACK"
    assert await app.balance() == [("LKR", "0", 0)]


@pytest.mark.parametrize(
    ("gateway", "content_type", "body", "status", "reason"),
    [
        ("kashier", "application/json", b'{"event":"pay"}', 403, "SIGNATURE_INVALID"),
        ("payhere", "application/x-www-form-urlencoded", b"a=b", 403, "SIGNATURE_INVALID"),
        ("payhere", "application/json", b"{}", 400, "WEBHOOK_MALFORMED"),
        ("kashier", "application/json", b" " * 70_000, 400, "WEBHOOK_MALFORMED"),
        ("stripe", "application/json", b"{}", 400, "REQUEST_INVALID"),
    ],
)
async def test_strangers_are_refused_with_a_reason(
    web: httpx.AsyncClient,
    gateway: str,
    content_type: str,
    body: bytes,
    status: int,
    reason: str,
) -> None:
    answer = await web.post(
        f"/v1/webhooks/{gateway}", content=body, headers={"content-type": content_type}
    )

    assert answer.status_code == status, answer.text
    assert [one for one, _ in reasons_of(answer.json()["details"])] == [reason]


async def test_booking_asks_for_a_deposit_and_hears_what_it_is_for(
    edge: Edge, double: GatewayDouble
) -> None:
    user = str(uuid.uuid4())
    async with edge.mesh_channel("booking") as mesh:
        booking = LedgerServiceStub(mesh)
        made = await booking.CreateDeposit(
            pb.CreateDepositRequest(
                gateway=deposit_pb2.GATEWAY_KASHIER,
                amount=money(12_000),
                tenant_id=DEMO_TENANT_ID,
                user_id=user,
                reference="booking/0198",
                request_id=str(uuid.uuid4()),
            ),
            timeout=10,
        )
        deposit_id = made.deposit.deposit_id
        assert await double.check_out(made.checkout.url, {}) == 200
        assert outcome_of(await double.tell(deposit_id)) == "APPLIED"
        found = await booking.GetDeposit(
            pb.GetDepositRequest(deposit_id=deposit_id, tenant_id=DEMO_TENANT_ID), timeout=10
        )

    assert found.state == deposit_pb2.DEPOSIT_STATE_SUCCEEDED
    assert (found.user_id, found.reference) == (user, "booking/0198")


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_no_payment_is_lost_or_doubled_when_the_ledger_is_killed(private_edge: Edge) -> None:
    stack = private_edge.stack
    async with (
        httpx.AsyncClient(base_url=private_edge.url, trust_env=False, timeout=20) as web,
        GatewayDouble(payment_accounts(stack.secrets)) as double,
    ):
        app = App(private_edge, web)
        made = [await app.deposit("KASHIER", "EGP") for _ in range(16)]
        for one in made:
            await double.check_out(one["checkout"]["url"], {})
        ids = [one["deposit"]["depositId"] for one in made]
        answered: list[str] = []

        async def tell_until_answered(deposit_id: str) -> None:
            """Post again and again, as gateways do."""
            while (answer := await double.tell(deposit_id)).status_code != 200:
                await asyncio.sleep(0.05)
            answered.append(outcome_of(answer))

        async with asyncio.TaskGroup() as group:
            for deposit_id in ids:
                group.create_task(tell_until_answered(deposit_id))
            await until(lambda: answered)
            await stack.services["ledger-1"].kill()
            await stack.restart_part("ledger-1")

        # What was recorded and not finished before the kill, a worker finishes. They are asked one
        # after the other: an app may make 120 calls a minute.
        async with asyncio.timeout(30):
            for deposit_id in ids:
                while await app.state(deposit_id) != "SUCCEEDED":
                    await asyncio.sleep(0.5)
        assert set(answered) <= {"APPLIED", "DUPLICATE"}
        assert await app.balance() == [("EGP", str(16 * 150 + 8), 0)]


@both_gateways
def test_wayfare_pay_plays_the_gateway(edge: Edge, gateway: str, code: str) -> None:
    headers = {"authorization": f"Bearer {edge.mint.token('PASSENGER')}"}
    body = {
        "gateway": f"GATEWAY_{gateway}",
        "amount": {"currencyCode": code, "units": 150},
        "requestId": str(uuid.uuid4()),
    }
    made = httpx.post(f"{edge.url}/v1/deposits", json=body, headers=headers, trust_env=False)
    deposit_id = made.json()["deposit"]["depositId"]
    command = CliRunner(env={"WAYFARE_HOME": str(edge.stack.home.path)})

    forged = command.invoke(application, ["pay", deposit_id, "--forged"])
    other = command.invoke(application, ["pay", deposit_id, "--amount", "10.00"])
    paid = command.invoke(application, ["pay", deposit_id, "--times", "2"])

    assert (forged.exit_code, other.exit_code, paid.exit_code) == (1, 1, 0)
    assert "SIGNATURE_INVALID" in forged.output
    assert "AMOUNT_MISMATCH" in other.output
    assert "APPLIED" in paid.output
    assert "DUPLICATE" in paid.output
    assert f"150.00 {code} is now SUCCEEDED" in paid.output

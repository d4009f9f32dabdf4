"""Deposits and webhooks over real servers: what counts, what does not, and what is kept of it."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from google.api import httpbody_pb2
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
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
    REVENUE,
    LedgerProcess,
    minor,
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
from wayfare.ledger.v1 import deposit_pb2, events_pb2
from wayfare.ledger.v1.ledger_service_pb2_grpc import LedgerServiceStub

pytestmark = pytest.mark.integration

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


@pytest.fixture
async def teller(
    migrated_database: TestDatabase, valkey_url: str, short_folder: Path
) -> AsyncIterator[Teller]:
    dsn = migrated_database.dsn_for("ledger")
    async with running_ledger(
        short_folder, dsn=dsn, valkey_url=valkey_url, mint=TokenMint(), **SETTINGS
    ) as process:
        yield Teller(process, migrated_database)


# Creating


@both_gateways
async def test_a_deposit_says_how_to_pay_and_the_same_request_the_same(
    teller: Teller, gateway: Any
) -> None:
    user = teller.ledger.bearer("PASSENGER", new_id())
    request = teller.request(gateway, return_url="https://example.org/back")

    first = await teller.ledger.call("CreateDeposit", request, user)
    again = await teller.ledger.call("CreateDeposit", request, user)

    assert first == again
    assert first.deposit.state == state("PENDING")
    assert "https" in first.checkout.url
    assert bool(first.checkout.form_fields) == (gateway == PAYHERE)
    assert await teller.states_told(first.deposit) == ["PENDING"]


async def test_one_request_id_with_another_amount_is_refused(teller: Teller) -> None:
    user = teller.ledger.bearer("PASSENGER", new_id())
    request = teller.request(KASHIER)
    await teller.ledger.call("CreateDeposit", request, user)
    request.amount.CopyFrom(money(10_001))

    refusal = await teller.ledger.refused("CreateDeposit", request, user)

    assert refusal.reason == "REQUEST_ID_REUSED"


async def test_the_same_request_at_once_makes_one_deposit(teller: Teller) -> None:
    user = teller.ledger.bearer("PASSENGER", new_id())
    request = teller.request(KASHIER)

    answers = await asyncio.gather(
        *(teller.ledger.call("CreateDeposit", request, user) for _ in range(10))
    )

    assert len({answer.SerializeToString(deterministic=True) for answer in answers}) == 1
    assert await teller.states_told(answers[0].deposit) == ["PENDING"]


@pytest.mark.parametrize(
    ("gateway", "amount", "reason"),
    [
        (KASHIER, money(10_000, "LKR"), "CURRENCY_MISMATCH"),
        (PAYHERE, money(10_000, "EGP"), "CURRENCY_MISMATCH"),
        (KASHIER, money(99, "EGP"), "AMOUNT_INVALID"),
        (KASHIER, money(0, "EGP"), "AMOUNT_INVALID"),
        (KASHIER, money(-10_000, "EGP"), "AMOUNT_INVALID"),
        (KASHIER, money(5_000_001, "EGP"), "AMOUNT_INVALID"),
    ],
)
async def test_what_the_gateway_does_not_take_is_refused(
    teller: Teller, gateway: Any, amount: Any, reason: str
) -> None:
    user = teller.ledger.bearer("PASSENGER", new_id())

    refusal = await teller.ledger.refused(
        "CreateDeposit", teller.request(gateway, amount=amount), user
    )

    assert refusal.reason == reason


@pytest.mark.parametrize("field", ["user_id", "reference", "expire_time"])
async def test_people_deposit_into_their_own_wallet_alone(teller: Teller, field: str) -> None:
    later = Timestamp()
    later.GetCurrentTime()
    values = {"user_id": new_id(), "reference": "booking/1", "expire_time": later}
    request = teller.request(KASHIER, **{field: values[field]})

    refusal = await teller.ledger.refused(
        "CreateDeposit", request, teller.ledger.bearer("ADMIN", new_id())
    )

    assert refusal.reason == "REQUEST_INVALID"


async def test_booking_deposits_for_a_passenger_with_a_reference_and_a_deadline(
    teller: Teller,
) -> None:
    soon = Timestamp()
    soon.GetCurrentTime()
    soon.seconds += 600
    user = new_id()
    request = teller.request(
        KASHIER, tenant_id=TENANT, user_id=user, reference="booking/7", expire_time=soon
    )

    made = (await teller.ledger.call("CreateDeposit", request)).deposit
    request.expire_time.seconds -= 100_000
    request.request_id = new_id()
    past = await teller.ledger.refused("CreateDeposit", request)
    request.user_id = ""
    nobody = await teller.ledger.refused("CreateDeposit", request)

    assert (made.user_id, made.reference, made.expire_time) == (user, "booking/7", soon)
    assert (past.reason, nobody.reason) == ("REQUEST_INVALID", "REQUEST_INVALID")


async def test_a_deposit_is_seen_by_its_person_and_by_staff_alone(teller: Teller) -> None:
    user = new_id()
    deposit = await teller.deposit(user=user)
    request = pb.GetDepositRequest(deposit_id=deposit.deposit_id)
    ledger = teller.ledger

    own = await ledger.call("GetDeposit", request, ledger.bearer("PASSENGER", user))
    staff = await ledger.call("GetDeposit", request, ledger.bearer("BUSINESS", new_id()))
    other = await ledger.refused("GetDeposit", request, ledger.bearer("DRIVER", new_id()))
    elsewhere = await ledger.refused(
        "GetDeposit", request, ledger.bearer("ADMIN", new_id(), tenant_id=new_id())
    )

    assert own == staff == deposit
    assert (other.reason, elsewhere.reason) == ("DEPOSIT_UNKNOWN", "DEPOSIT_UNKNOWN")


# What counts


@both_gateways
async def test_a_paid_deposit_is_in_the_wallet_when_the_webhook_is_answered(
    teller: Teller, gateway: Any
) -> None:
    deposit = await teller.deposit(gateway)

    assert await teller.tell(deposit) == outcome("APPLIED")

    paid = await teller.now(deposit)
    assert paid.state == state("SUCCEEDED")
    assert paid.gateway_payment_id == f"TX-{deposit.deposit_id[:8]}"
    assert await teller.balance(deposit) == 10_000
    assert await teller.states_told(deposit) == ["PENDING", "SUCCEEDED"]
    moved = await teller.ledger.call(
        "GetTransfer", pb.GetTransferRequest(transfer_id=paid.transfer_id, tenant_id=TENANT)
    )
    assert (moved.kind, moved.reference) == ("DEPOSIT", f"deposit/{deposit.deposit_id}")


@both_gateways
async def test_a_webhook_that_comes_again_counts_once(teller: Teller, gateway: Any) -> None:
    deposit = await teller.deposit(gateway)
    post = teller.post(deposit)

    outcomes = [await teller.send(post) for _ in range(3)]

    assert outcomes == [outcome("APPLIED"), outcome("DUPLICATE"), outcome("DUPLICATE")]
    assert await teller.balance(deposit) == 10_000
    assert await teller.audit() == [
        ("APPLIED", "", True),
        ("DUPLICATE", "", True),
        ("DUPLICATE", "", True),
    ]


async def test_fifty_at_once_on_two_processes_count_once(
    teller: Teller, valkey_url: str, short_folder: Path
) -> None:
    deposit = await teller.deposit()
    post = teller.post(deposit)
    dsn = teller.database.dsn_for("ledger")
    async with running_ledger(
        short_folder, dsn=dsn, valkey_url=valkey_url, mint=TokenMint(), **SETTINGS
    ) as other:
        outcomes = await asyncio.gather(
            *(teller.send(post, ledger=(teller.ledger, other)[n % 2]) for n in range(50))
        )

    assert outcomes.count(outcome("APPLIED")) == 1
    assert outcomes.count(outcome("DUPLICATE")) == 49
    assert await teller.balance(deposit) == 10_000
    assert await teller.states_told(deposit) == ["PENDING", "SUCCEEDED"]
    kept = await teller.rows("SELECT sum(webhook_count)::int FROM ledger.payment_webhooks")
    assert kept[0][0] == 50


async def test_a_failure_after_the_success_takes_nothing_back(teller: Teller) -> None:
    deposit = await teller.deposit()
    await teller.tell(deposit)

    late = await teller.tell(deposit, Payment.FAILED)

    assert late == outcome("IGNORED")
    assert await teller.state(deposit) == "SUCCEEDED"
    assert (await teller.audit())[1] == ("IGNORED", "AFTER_LATER_STATE", True)


async def test_a_success_after_a_failure_counts(teller: Teller) -> None:
    deposit = await teller.deposit()

    outcomes = [
        await teller.tell(deposit, payment)
        for payment in (Payment.FAILED, Payment.FAILED, Payment.PAID)
    ]

    assert outcomes == [outcome("APPLIED"), outcome("DUPLICATE"), outcome("APPLIED")]
    assert await teller.balance(deposit) == 10_000
    assert await teller.states_told(deposit) == ["PENDING", "FAILED", "SUCCEEDED"]


@both_gateways
async def test_what_is_on_its_way_changes_nothing(teller: Teller, gateway: Any) -> None:
    deposit = await teller.deposit(gateway)

    assert await teller.tell(deposit, Payment.PENDING) == outcome("IGNORED")

    assert await teller.state(deposit) == "PENDING"
    assert await teller.audit() == [("IGNORED", "STATUS_NOT_FOLLOWED", True)]


async def test_a_deposit_expires_and_a_late_payment_still_counts(teller: Teller) -> None:
    soon = Timestamp()
    soon.GetCurrentTime()
    soon.seconds += 1
    request = teller.request(KASHIER, tenant_id=TENANT, user_id=new_id(), expire_time=soon)
    deposit = (await teller.ledger.call("CreateDeposit", request)).deposit
    await teller.until_state(deposit, "EXPIRED")

    refused = await teller.tell(deposit, Payment.FAILED)
    late = await teller.tell(deposit)

    assert (refused, late) == (outcome("IGNORED"), outcome("APPLIED"))
    assert await teller.balance(deposit) == 10_000
    assert await teller.states_told(deposit) == ["PENDING", "EXPIRED", "SUCCEEDED"]


async def test_a_second_payment_of_one_order_is_kept_for_people_and_not_counted(
    teller: Teller,
) -> None:
    deposit = await teller.deposit()
    await teller.tell(deposit)

    assert await teller.tell(deposit, payment_id="TX-other") == outcome("IGNORED")

    assert await teller.balance(deposit) == 10_000
    assert (await teller.audit())[1] == ("IGNORED", "PAID_AGAIN", True)


async def test_a_payment_counts_for_one_deposit(teller: Teller) -> None:
    first, second = await teller.deposit(PAYHERE), await teller.deposit(PAYHERE)
    await teller.tell(first, payment_id="320025021815")

    assert await teller.tell(second, payment_id="320025021815") == outcome("DUPLICATE")

    assert await teller.state(second) == "PENDING"
    assert await teller.balance(second) == 0
    assert (await teller.audit())[1] == ("DUPLICATE", "PAYMENT_TAKEN", True)


# Charge-backs


async def test_a_charge_back_takes_the_money_out_of_the_wallet(teller: Teller) -> None:
    deposit = await teller.deposit(PAYHERE)
    await teller.tell(deposit)

    outcomes = [await teller.tell(deposit, Payment.CHARGED_BACK) for _ in range(2)]

    assert outcomes == [outcome("APPLIED"), outcome("DUPLICATE")]
    assert await teller.balance(deposit) == 0
    assert await teller.sums() == {"WALLET": 0, "GATEWAY_CLEARING": 0}
    back = await teller.now(deposit)
    assert back.state == state("CHARGED_BACK")
    assert back.charge_back_transfer_id
    assert await teller.states_told(deposit) == ["PENDING", "SUCCEEDED", "CHARGED_BACK"]


@pytest.mark.parametrize("spent", [4_000, 10_000])
async def test_what_the_wallet_no_longer_has_the_operator_bears(teller: Teller, spent: int) -> None:
    deposit = await teller.deposit(PAYHERE)
    await teller.tell(deposit)
    owner = wallet(deposit.user_id)
    spending = transfer(owner, REVENUE, spent)
    for one in spending.postings:
        one.amount.currency_code = "LKR"
    assert await teller.ledger.create(spending) == [""]

    assert await teller.tell(deposit, Payment.CHARGED_BACK) == outcome("APPLIED")

    assert await teller.sums() == {"WALLET": 0, "GATEWAY_CLEARING": 0, "REVENUE": 0}


async def test_a_blocked_wallet_bears_a_charge_back(teller: Teller) -> None:
    deposit = await teller.deposit(PAYHERE)
    await teller.tell(deposit)
    owner = pb.GetBalanceRequest(user_id=deposit.user_id, tenant_id=TENANT)
    (account,) = (await teller.ledger.call("GetBalance", owner)).wallets
    account.blocked = True
    block = pb.UpdateAccountRequest(account=account, update_mask=FieldMask(paths=["blocked"]))
    await teller.ledger.call("UpdateAccount", block, teller.ledger.bearer("ADMIN", new_id()))

    assert await teller.tell(deposit, Payment.CHARGED_BACK) == outcome("APPLIED")

    assert await teller.sums() == {"WALLET": 0, "GATEWAY_CLEARING": 0}


async def test_a_charge_back_that_overtakes_its_payment_leaves_no_money(teller: Teller) -> None:
    deposit = await teller.deposit(PAYHERE)

    first = await teller.tell(deposit, Payment.CHARGED_BACK)
    then = await teller.tell(deposit)

    assert (first, then) == (outcome("APPLIED"), outcome("IGNORED"))
    assert await teller.state(deposit) == "CHARGED_BACK"
    assert await teller.sums() == {}
    assert (await teller.audit())[1] == ("IGNORED", "AFTER_CHARGE_BACK", True)


async def test_a_refund_of_kashier_is_kept_and_not_followed(teller: Teller) -> None:
    deposit = await teller.deposit(KASHIER)
    await teller.tell(deposit)

    assert await teller.tell(deposit, Payment.CHARGED_BACK) == outcome("IGNORED")

    assert await teller.balance(deposit) == 10_000


async def test_payments_and_charge_backs_at_once_end_without_money(teller: Teller) -> None:
    deposits = [await teller.deposit(PAYHERE) for _ in range(8)]

    await asyncio.gather(
        *(
            teller.tell(deposit, payment)
            for deposit in deposits
            for payment in (Payment.PAID, Payment.CHARGED_BACK, Payment.PAID, Payment.FAILED)
        )
    )

    assert {await teller.state(deposit) for deposit in deposits} == {"CHARGED_BACK"}
    assert sum((await teller.sums()).values()) == 0
    assert not any([await teller.balance(deposit) for deposit in deposits])


# What is refused


def changed(post: SignedPost, old: str, new: str) -> SignedPost:
    assert old.encode() in post.body
    return replace(post, body=post.body.replace(old.encode(), new.encode()))


def without_signature(post: SignedPost) -> SignedPost:
    headers = {name: text for name, text in post.headers.items() if not name.startswith("x-")}
    return replace(post, body=post.body.replace(b"md5sig", b"nothing"), headers=headers)


def with_fewer_keys(post: SignedPost) -> SignedPost:
    """Sign anew over fewer keys, with the right secret, and change what is no longer covered."""
    document = json.loads(post.body)
    data = document["data"]
    data["signatureKeys"] = ["merchantOrderId", "status", "currency"]
    text = "&".join(f"{key}={data[key]}" for key in sorted(data["signatureKeys"]))
    signature = hmac.new(ACCOUNTS.kashier_secret.encode(), text.encode(), hashlib.sha256)
    headers = {**post.headers, "x-kashier-signature": signature.hexdigest()}
    return replace(post, body=json.dumps(document).encode(), headers=headers)


@both_gateways
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda post: changed(post, "100.00", "900.00"), "SIGNATURE_INVALID"),
        (without_signature, "SIGNATURE_INVALID"),
        (lambda post: replace(post, body=post.body[: len(post.body) // 2]), None),
        (lambda post: replace(post, body=b""), None),
        (lambda post: replace(post, body=post.body + b" " * 65_536), "WEBHOOK_MALFORMED"),
        (lambda post: replace(post, headers={**post.headers, "content-type": "text/plain"}), None),
    ],
    ids=["forged", "unsigned", "truncated", "empty", "too long", "of another type"],
)
async def test_a_spoilt_webhook_is_refused_and_kept(
    teller: Teller, gateway: Any, spoil: Any, reason: str | None
) -> None:
    deposit = await teller.deposit(gateway)

    refusal = await teller.refused(spoil(teller.post(deposit)))

    assert refusal.reason in ({reason} if reason else {"WEBHOOK_MALFORMED", "SIGNATURE_INVALID"})
    assert await teller.audit() == [("REFUSED", refusal.reason, False)]
    assert await teller.state(deposit) == "PENDING"
    assert await teller.sums() == {}


async def test_a_webhook_signed_over_fewer_keys_is_refused(teller: Teller) -> None:
    deposit = await teller.deposit(KASHIER)
    post = changed(with_fewer_keys(teller.post(deposit)), "100.00", "900.00")

    assert (await teller.refused(post)).reason == "SIGNATURE_INVALID"

    assert await teller.audit() == [("REFUSED", "SIGNATURE_INVALID", False)]


@both_gateways
async def test_another_amount_than_was_asked_for_is_refused(teller: Teller, gateway: Any) -> None:
    deposit = await teller.deposit(gateway)

    refusal = await teller.refused(teller.post(deposit, amount="10.00"))

    assert refusal.reason == "AMOUNT_MISMATCH"
    assert (refusal.metadata["expected_minor"], refusal.metadata["received_minor"]) == (
        "10000",
        "1000",
    )
    assert await teller.audit() == [("REFUSED", "AMOUNT_MISMATCH", True)]
    assert await teller.sums() == {}


@both_gateways
async def test_another_currency_than_was_asked_for_is_refused(teller: Teller, gateway: Any) -> None:
    deposit = await teller.deposit(gateway)

    refusal = await teller.refused(teller.post(deposit, currency_code="USD"))

    assert refusal.reason == "CURRENCY_MISMATCH"
    assert await teller.audit() == [("REFUSED", "CURRENCY_MISMATCH", True)]


@both_gateways
async def test_an_order_that_nobody_made_is_told_to_the_gateway_alone(
    teller: Teller, gateway: Any
) -> None:
    deposit = await teller.deposit(gateway)
    deposit.deposit_id = new_id()
    right = teller.post(deposit)

    by_gateway = await teller.refused(right)
    by_stranger = await teller.refused(changed(right, "100.00", "100.01"))

    assert (by_gateway.reason, by_stranger.reason) == ("DEPOSIT_UNKNOWN", "SIGNATURE_INVALID")
    assert [line[1:] for line in await teller.audit()] == [
        ("DEPOSIT_UNKNOWN", True),
        ("SIGNATURE_INVALID", False),
    ]


async def test_an_order_of_the_other_gateway_is_unknown(teller: Teller) -> None:
    deposit = await teller.deposit(PAYHERE)
    post = kashier_post(ACCOUNTS, teller.news(deposit))

    assert (await teller.refused(post)).reason == "DEPOSIT_UNKNOWN"


async def test_the_key_of_another_tenant_signs_nothing_here(
    migrated_database: TestDatabase, valkey_url: str, short_folder: Path
) -> None:
    own = PaymentAccounts(payhere_secret="payhere-own-secret", kashier_secret="kashier-own-key")
    setting = json.loads(ACCOUNTS.setting())
    setting["kashier"]["tenants"] = {TENANT: json.loads(own.setting())["kashier"]["default"]}
    setting["payhere"]["tenants"] = {TENANT: None}
    values = {**SETTINGS, "ledger_payment_gateways": SecretStr(json.dumps(setting))}
    dsn = migrated_database.dsn_for("ledger")
    async with running_ledger(
        short_folder, dsn=dsn, valkey_url=valkey_url, mint=TokenMint(), **values
    ) as process:
        teller = Teller(process, migrated_database)
        deposit = await teller.deposit(KASHIER)
        by_default = await teller.refused(kashier_post(ACCOUNTS, teller.news(deposit)))
        by_own = await teller.send(kashier_post(own, teller.news(deposit)))
        none = await process.refused(
            "CreateDeposit",
            teller.request(PAYHERE),
            process.bearer("PASSENGER", new_id()),
        )

    assert by_default.reason == "SIGNATURE_INVALID"
    assert by_own == outcome("APPLIED")
    assert none.reason == "GATEWAY_NOT_CONFIGURED"


async def test_a_flood_of_strangers_is_kept_as_sums_and_the_gateway_is_still_kept_whole(
    teller: Teller,
) -> None:
    deposit = await teller.deposit()
    forged = changed(teller.post(deposit), "100.00", "900.00")

    for _ in range(90):
        await teller.refused(forged)
    await teller.tell(deposit)

    async def kept() -> int:
        rows = await teller.rows(
            "SELECT coalesce(sum(webhook_count), 0)::int FROM ledger.payment_webhooks"
            " WHERE NOT is_verified"
        )
        return int(rows[0][0])

    async with asyncio.timeout(10):
        while await kept() < 90:
            await asyncio.sleep(0.05)
    lines = await teller.audit()
    assert await kept() == 90
    assert 60 <= lines.count(("REFUSED", "SIGNATURE_INVALID", False)) < 90
    assert lines.count(("APPLIED", "", True)) == 1


async def test_nothing_of_a_stranger_s_claims_that_may_be_personal_is_kept(teller: Teller) -> None:
    deposit = await teller.deposit(KASHIER)
    forged = teller.post(deposit, order_id="4111111111111111", payment_id="Amina-4111111111111111")

    await teller.refused(changed(forged, "100.00", "900.00"))

    (row,) = await teller.rows("SELECT * FROM ledger.payment_webhooks")
    assert "4111" not in str(dict(row))
    assert (row["status"], row["amount_minor"], row["tenant_id"]) == ("SUCCEEDED", 90_000, None)

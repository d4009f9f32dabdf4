"""Webhooks over real servers: charge-backs, what is refused, and what is kept of it."""

import asyncio
import hashlib
import hmac
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from pydantic import SecretStr

from services.stack.payment_gateways import (
    Payment,
    PaymentAccounts,
    SignedPost,
    kashier_post,
)
from tests.support.ledger_deposits import (
    ACCOUNTS,
    KASHIER,
    PAYHERE,
    SETTINGS,
    Teller,
    both_gateways,
    outcome,
    state,
)
from tests.support.ledger_process import (
    REVENUE,
    LedgerProcess,
    pb,
    running_ledger,
    transfer,
    wallet,
)
from tests.support.location_tokens import TokenMint
from tests.support.location_values import TENANT, new_id
from tests.support.stack_fixtures import TestDatabase
from wayfare.ledger.v1 import deposit_pb2

pytestmark = pytest.mark.integration


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


async def test_without_any_account_at_a_gateway_its_webhooks_are_refused_and_kept(
    ledger: LedgerProcess, migrated_database: TestDatabase
) -> None:
    teller = Teller(ledger, migrated_database)
    stranger = deposit_pb2.Deposit(deposit_id=new_id(), gateway=PAYHERE)
    stranger.amount.currency_code = "LKR"

    assert (await teller.refused(teller.post(stranger))).reason == "GATEWAY_NOT_CONFIGURED"

    assert await teller.audit() == [("REFUSED", "GATEWAY_NOT_CONFIGURED", False)]


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

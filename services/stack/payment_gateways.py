"""Test accounts at the payment gateways, made once per home, and what the gateways would post.

The stack gives the accounts to LedgerService; `wayfare pay` and the tests sign notifications with
their secrets, as PayHere and Kashier do. Nothing here calls a gateway.
"""

import hashlib
import hmac
import json
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import quote, urlencode

from services.stack.passwords import read_or_create_secret

# Made up; PayHere's are numbers.
PAYHERE_MERCHANT_ID = "1210000"
KASHIER_MERCHANT_ID = "MID-0-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentAccounts:
    """Holds the secrets of the test accounts."""

    payhere_secret: str = field(repr=False)
    kashier_secret: str = field(repr=False)

    def setting(self) -> str:
        """Return the accounts as LedgerService reads them, for every tenant, in test mode."""
        return json.dumps(
            {
                "payhere": {"default": _account(PAYHERE_MERCHANT_ID, self.payhere_secret)},
                "kashier": {"default": _account(KASHIER_MERCHANT_ID, self.kashier_secret)},
            }
        )


def payment_accounts(folder: Path) -> PaymentAccounts:
    """Return the test accounts of a folder of secrets; made at random when they are absent."""
    return PaymentAccounts(
        payhere_secret=read_or_create_secret(folder / "payhere-merchant-secret"),
        kashier_secret=read_or_create_secret(folder / "kashier-api-key"),
    )


class Payment(StrEnum):
    """Says what the gateway tells of."""

    PAID = "paid"
    FAILED = "failed"
    PENDING = "pending"
    CHARGED_BACK = "charged-back"


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """Is what a gateway tells of an order. `amount` is in major units with two decimals."""

    order_id: str
    payment_id: str
    payment: Payment
    amount: str
    currency_code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedPost:
    """Is a notification, ready to be posted to `path` of the edge."""

    path: str
    body: bytes
    headers: dict[str, str]


def payhere_post(accounts: PaymentAccounts, news: News) -> SignedPost:
    """Return the form that PayHere posts. Everybody's name and card in it are left out."""
    codes = {
        Payment.PAID: "2",
        Payment.PENDING: "0",
        Payment.FAILED: "-2",
        Payment.CHARGED_BACK: "-3",
    }
    signed = {
        "merchant_id": PAYHERE_MERCHANT_ID,
        "order_id": news.order_id,
        "payhere_amount": news.amount,
        "payhere_currency": news.currency_code,
        "status_code": codes[news.payment],
    }
    text = "".join(signed.values()) + _md5(accounts.payhere_secret)
    form = {**signed, "payment_id": news.payment_id, "md5sig": _md5(text), "method": "TEST"}
    return SignedPost(
        path="/v1/webhooks/payhere",
        body=urlencode(form).encode(),
        headers={"content-type": "application/x-www-form-urlencoded"},
    )


def kashier_post(accounts: PaymentAccounts, news: News) -> SignedPost:
    """Return the JSON that Kashier posts; it knows no charge-back, which is told as a refund."""
    statuses = {Payment.PAID: "SUCCESS", Payment.FAILED: "FAILED", Payment.PENDING: "PENDING"}
    data = {
        "amount": news.amount,
        "currency": news.currency_code,
        "kashierOrderId": f"ko-{news.order_id}",
        "merchantOrderId": news.order_id,
        "method": "card",
        "status": statuses.get(news.payment, "SUCCESS"),
        "transactionId": news.payment_id,
    }
    keys = sorted(set(data) - {"method"})
    text = "&".join(f"{key}={quote(data[key], safe='')}" for key in keys)
    signature = hmac.new(accounts.kashier_secret.encode(), text.encode(), hashlib.sha256)
    event = "refund" if news.payment is Payment.CHARGED_BACK else "pay"
    return SignedPost(
        path="/v1/webhooks/kashier",
        body=json.dumps({"event": event, "data": {**data, "signatureKeys": keys}}).encode(),
        headers={
            "content-type": "application/json",
            "x-kashier-signature": signature.hexdigest(),
        },
    )


def _account(merchant_id: str, secret: str) -> dict[str, str]:
    return {"merchant_id": merchant_id, "secret": secret, "mode": "test"}


def _md5(text: str) -> str:
    # PayHere's protocol asks for it.
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest().upper()

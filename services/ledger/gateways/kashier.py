"""Speaks with Kashier (Egypt, EGP): a hosted page to open, and JSON notifications.

The signature in a header is the HMAC-SHA256 of those fields that `signatureKeys` names, as a query
string of JavaScript's printing of their values; names sorted or as received, both are in use. The
`event` is never signed: a refund looks like its payment, so only what names itself a payment is
followed, and the deposit decides what that may still change.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NoReturn
from urllib.parse import quote, urlencode

from services.ledger.deposit_errors import SignatureInvalidError, WebhookMalformedError
from services.ledger.deposit_ports import (
    Checkout,
    GatewayAccount,
    Order,
    ReadWebhook,
    WebhookPost,
)
from services.ledger.domain.deposits import GatewayName, Notification, PaymentStatus
from services.ledger.gateways.amounts import (
    check_currency,
    check_identifier,
    major_units,
    minor_units,
)

_PAGE = "https://checkout.kashier.io/"
_SIGNATURE_HEADER = "x-kashier-signature"
_COVERED = ("merchantOrderId", "amount", "currency", "status")
_KEYS_MAX = 64
_FAILURES = frozenset({"FAILED", "FAILURE", "CANCELLED", "DECLINED", "EXPIRED"})
# Within these a double holds a decimal exactly enough that JavaScript prints the same digits.
_DIGITS_MAX = 15
_EXPONENT_LEAST, _EXPONENT_MOST = -6, 20


class Kashier:
    """Is the gateway Kashier."""

    name = GatewayName.KASHIER
    currency_code = "EGP"

    def checkout(self, order: Order, account: GatewayAccount) -> Checkout:
        """Return the hosted page with the order and its hash."""
        amount = major_units(order.amount_minor, order.currency_code)
        path = f"/?payment={account.merchant_id}.{order.order_id}.{amount}.{order.currency_code}"
        query = {
            "merchantId": account.merchant_id,
            "orderId": order.order_id,
            "amount": amount,
            "currency": order.currency_code,
            "hash": _hmac(path, account.secret),
            "mode": "live" if account.live else "test",
            "merchantRedirect": order.return_url,
            "serverWebhook": order.webhook_url,
        }
        url = account.checkout_url or _PAGE
        return Checkout(url=f"{url}?{urlencode(query, quote_via=quote)}")

    def read(self, post: WebhookPost) -> ReadWebhook:
        """Read a notification. Raises SignatureInvalidError, WebhookMalformedError."""
        signature = post.headers.get(_SIGNATURE_HEADER, "")
        if not signature:
            raise SignatureInvalidError(self.name)
        event, data = self._parse(post)
        keys = data.get("signatureKeys")
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise SignatureInvalidError(self.name)
        if not set(_COVERED) <= set(keys):
            raise SignatureInvalidError(self.name)
        try:
            notification = _notification(event, data)
            signed = tuple(_query(data, order) for order in (sorted(keys), keys))
        except ValueError as error:
            raise WebhookMalformedError(self.name, str(error)) from None
        return ReadWebhook(
            notification=notification, signed=signed, signature=signature, merchant_id=""
        )

    def is_from(self, webhook: ReadWebhook, account: GatewayAccount) -> bool:
        """Say whether a notification bears the signature of an account."""
        given = webhook.signature.encode()
        # All are always compared.
        matches = [
            hmac.compare_digest(given, _hmac(text, secret).encode())
            for text in webhook.signed
            for secret in account.verifying_secrets
        ]
        return any(matches)

    def _parse(self, post: WebhookPost) -> tuple[object, Mapping[str, Any]]:
        if post.content_type.partition(";")[0].strip().lower() != "application/json":
            raise WebhookMalformedError(self.name, "the content type is not application/json")
        try:
            document = json.loads(
                post.body,
                parse_int=Decimal,
                parse_float=Decimal,
                parse_constant=_refuse_constant,
                object_pairs_hook=_unique,
            )
        except (ValueError, ArithmeticError, RecursionError):
            raise WebhookMalformedError(self.name, "the body is not JSON") from None
        data = document.get("data") if isinstance(document, dict) else None
        if not isinstance(data, dict):
            raise WebhookMalformedError(self.name, "there is no data")
        return document.get("event"), data


def _notification(event: object, data: Mapping[str, Any]) -> Notification:
    currency_code = check_currency(_print(data.get("currency")))
    return Notification(
        order_id=check_identifier(_print(data.get("merchantOrderId")), "merchantOrderId"),
        payment_id=check_identifier(_print(data.get("transactionId")), "transactionId"),
        status=_status(event, _print(data.get("status"))),
        amount_minor=minor_units(_print(data.get("amount")), currency_code),
        currency_code=currency_code,
    )


def _status(event: object, status: str) -> PaymentStatus:
    if event != "pay":
        return PaymentStatus.NOT_FOLLOWED
    if status == "SUCCESS":
        return PaymentStatus.SUCCEEDED
    return PaymentStatus.FAILED if status in _FAILURES else PaymentStatus.NOT_FOLLOWED


def _query(data: Mapping[str, Any], keys: Sequence[str]) -> str:
    """Return the fields as a query string; what is named and absent is left out, as there."""
    if len(keys) > _KEYS_MAX or len(set(keys)) != len(keys):
        raise ValueError("signatureKeys names a field twice, or too many")
    pairs = []
    for key in keys:
        if key in data:
            name, value = _encode(key), data[key]
            pairs.append(name if value is None else f"{name}={_encode(_print(value))}")
    return "&".join(pairs)


def _print(value: object) -> str:
    """Return a value as JavaScript prints it. Raises ValueError if that is not one text."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return _print_number(value)
    raise ValueError("a field that counts is absent, or is no plain value")


def _print_number(number: Decimal) -> str:
    if not number:
        return "0"
    # Before anything else is done with it: 1e999999999 would print for ever.
    if not _EXPONENT_LEAST <= number.adjusted() <= _EXPONENT_MOST:
        raise ValueError("a number is too large or too small")
    digits = number.normalize()
    if len(digits.as_tuple().digits) > _DIGITS_MAX:
        raise ValueError("a number has too many digits")
    return f"{digits:f}"


def _encode(text: str) -> str:
    """Return a text in RFC 3986 percent-encoding. Raises ValueError if it has no UTF-8."""
    return quote(text, safe="")


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name comes twice")
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _hmac(text: str, key: str) -> str:
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()

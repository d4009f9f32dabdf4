"""Speaks with PayHere (Sri Lanka, LKR): a form to post, and form-encoded notifications.

Both are signed with the upper-case MD5 of their parts and of the secret's own MD5, as PayHere's own
shop plugin does. Only six parts of a notification are signed; nothing else of it is believed. It
has neither time nor nonce, so a replay is a duplicate, found by what the deposit knows.
"""

import hashlib
import hmac
from urllib.parse import parse_qsl

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

_CONTENT_TYPE = "application/x-www-form-urlencoded"
_FIELDS_MAX = 64
_LIVE, _TEST = "https://www.payhere.lk/pay/checkout", "https://sandbox.payhere.lk/pay/checkout"
# 3 is an authorisation: the money is held at the bank and not taken. 0 is still on its way.
_STATUSES = {
    "2": PaymentStatus.SUCCEEDED,
    "-1": PaymentStatus.FAILED,
    "-2": PaymentStatus.FAILED,
    "-3": PaymentStatus.CHARGED_BACK,
    "0": PaymentStatus.NOT_FOLLOWED,
    "3": PaymentStatus.NOT_FOLLOWED,
}
_SIGNED = ("merchant_id", "order_id", "payhere_amount", "payhere_currency", "status_code")


class PayHere:
    """Is the gateway PayHere."""

    name = GatewayName.PAYHERE
    currency_code = "LKR"

    def checkout(self, order: Order, account: GatewayAccount) -> Checkout:
        """Return the form to post. The payer's name and address are the client's to add."""
        amount = major_units(order.amount_minor, order.currency_code)
        parts = (account.merchant_id, order.order_id, amount, order.currency_code)
        fields = {
            "merchant_id": account.merchant_id,
            "return_url": order.return_url,
            "cancel_url": order.return_url,
            "notify_url": order.webhook_url,
            "order_id": order.order_id,
            "items": f"Deposit {order.order_id}",
            "currency": order.currency_code,
            "amount": amount,
            "hash": _signature("".join(parts), account.secret),
        }
        url = account.checkout_url or (_LIVE if account.live else _TEST)
        return Checkout(url=url, form_fields=fields)

    def read(self, post: WebhookPost) -> ReadWebhook:
        """Read a notification. Raises SignatureInvalidError, WebhookMalformedError."""
        fields = self._fields(post)
        signature = fields.get("md5sig", "")
        if not signature:
            raise SignatureInvalidError(self.name)
        missing = [name for name in (*_SIGNED, "payment_id") if not fields.get(name)]
        if missing:
            raise WebhookMalformedError(self.name, f"{missing[0]} is missing")
        try:
            currency_code = check_currency(fields["payhere_currency"])
            notification = Notification(
                order_id=check_identifier(fields["order_id"], "order_id"),
                payment_id=check_identifier(fields["payment_id"], "payment_id"),
                status=_status(fields["status_code"]),
                amount_minor=minor_units(fields["payhere_amount"], currency_code),
                currency_code=currency_code,
            )
        except ValueError as error:
            raise WebhookMalformedError(self.name, str(error)) from None
        return ReadWebhook(
            notification=notification,
            signed=("".join(fields[name] for name in _SIGNED),),
            signature=signature,
            merchant_id=fields["merchant_id"],
        )

    def is_from(self, webhook: ReadWebhook, account: GatewayAccount) -> bool:
        """Say whether a notification bears the signature of an account."""
        ours = hmac.compare_digest(webhook.merchant_id.encode(), account.merchant_id.encode())
        given = webhook.signature.encode()
        # All are always compared.
        matches = [
            hmac.compare_digest(given, _signature(webhook.signed[0], secret).encode())
            for secret in account.verifying_secrets
        ]
        return any(matches) and ours

    def _fields(self, post: WebhookPost) -> dict[str, str]:
        if post.content_type.partition(";")[0].strip().lower() != _CONTENT_TYPE:
            raise WebhookMalformedError(self.name, f"the content type is not {_CONTENT_TYPE}")
        try:
            pairs = parse_qsl(
                post.body.decode("utf-8"),
                keep_blank_values=True,
                strict_parsing=True,
                errors="strict",
                max_num_fields=_FIELDS_MAX,
            )
        except ValueError:
            raise WebhookMalformedError(self.name, "the body is not an encoded form") from None
        fields = dict(pairs)
        if len(fields) != len(pairs):
            raise WebhookMalformedError(self.name, "a field comes twice")
        return fields


def _status(code: str) -> PaymentStatus:
    if code not in _STATUSES:
        raise ValueError("status_code is none that is known")
    return _STATUSES[code]


def _signature(text: str, secret: str) -> str:
    return _md5(text + _md5(secret))


def _md5(text: str) -> str:
    # The protocol is PayHere's; what it lacks, the comparison with our own deposit makes up for.
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest().upper()

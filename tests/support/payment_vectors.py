"""The vectors of the payment gateways, and posts made of them."""

import hashlib
import hmac
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from services.ledger.deposit_ports import GatewayAccount, Order, WebhookPost

VECTORS = Path(__file__).parents[1] / "data" / "payment_webhooks"
FORM = "application/x-www-form-urlencoded"


def vectors(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text())


def account(secret: str, merchant_id: str = "1210000", **values: Any) -> GatewayAccount:
    return GatewayAccount(
        **{
            "merchant_id": merchant_id,
            "secret": secret,
            "live": False,
            "minimum_minor": 1,
            "maximum_minor": 10**9,
            "return_url": "",
            "checkout_url": "",
            **values,
        }
    )


def order(**values: Any) -> Order:
    return Order(
        **{
            "order_id": "Order-1",
            "amount_minor": 100_000,
            "currency_code": "LKR",
            "return_url": "https://example.org/back?x=1&y=2",
            "webhook_url": "https://example.org/v1/webhooks/payhere",
            **values,
        }
    )


def form(fields: Mapping[str, str], content_type: str = FORM) -> WebhookPost:
    body = urlencode(fields).encode()
    return WebhookPost(body=body, content_type=content_type, headers={})


def posted(body: object, signature: str | None, content_type: str = "application/json") -> Any:
    text = body if isinstance(body, str) else json.dumps(body)
    headers = {} if signature is None else {"x-kashier-signature": signature}
    return WebhookPost(body=text.encode(), content_type=content_type, headers=headers)


PAYHERE = vectors("payhere_notify_computed")
KASHIER = vectors("kashier_webhook_computed")
ONE = vectors("payments_vectors_computed")
KASHIER_KEY = KASHIER["api_key"]


def kashier_sign(text: str, key: str = KASHIER_KEY) -> str:
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()


def kashier_body(**changed: Any) -> dict[str, Any]:
    data = {**KASHIER["posts"][0]["body"]["data"], **changed}
    return {"event": "pay", "data": data}

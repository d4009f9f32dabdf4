"""Stands in for PayHere and Kashier: speaks their protocols over HTTP on loopback.

Takes a checkout as the vendor's page does, refuses one whose hash is wrong, and posts signed
notifications to the URL that the checkout named: once or again, late, in another order, or spoilt.
"""

import asyncio
import hashlib
import hmac
import threading
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx

from services.stack.payment_gateways import (
    KASHIER_MERCHANT_ID,
    PAYHERE_MERCHANT_ID,
    News,
    Payment,
    PaymentAccounts,
    SignedPost,
    kashier_post,
    payhere_post,
)

PAYHERE_PATH, KASHIER_PATH = "/pay/checkout", "/"
# Is asked of every client; a checkout without it is refused.
_PAYER = {
    "first_name": "Test",
    "last_name": "Payer",
    "email": "payer@example.com",
    "phone": "0771234567",
    "address": "1 Galle Road",
    "city": "Colombo",
    "country": "Sri Lanka",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedOrder:
    """Is an order whose checkout somebody opened."""

    gateway: str
    order_id: str
    amount: str
    currency_code: str
    notify_url: str
    return_url: str


class GatewayDouble:
    """Is both gateways at once, on a port of its own."""

    def __init__(self, accounts: PaymentAccounts) -> None:
        self._accounts = accounts
        self.orders: dict[str, PlacedOrder] = {}
        double = self

        class Pages(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                placed = None
                if parts.path == KASHIER_PATH:
                    placed = double.open_kashier(dict(parse_qsl(parts.query)))
                self._answer(placed)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                placed = None
                if self.path == PAYHERE_PATH:
                    placed = double.open_payhere(dict(parse_qsl(body)))
                self._answer(placed)

            def _answer(self, placed: PlacedOrder | None) -> None:
                page = f"<h1>Pay {placed.amount}</h1>" if placed else "<h1>Refused</h1>"
                self.send_response(200 if placed else 400)
                self.end_headers()
                self.wfile.write(page.encode())

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - its name
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
        self._thread = threading.Thread(target=self._server.serve_forever)

    async def __aenter__(self) -> Self:
        self._thread.start()
        self._web = httpx.AsyncClient(timeout=20, trust_env=False)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._web.aclose()
        await asyncio.to_thread(self._server.shutdown)
        self._server.server_close()
        self._thread.join()

    @property
    def address(self) -> str:
        """Return host:port."""
        return f"127.0.0.1:{self._server.server_port}"

    async def check_out(self, url: str, form: dict[str, str]) -> int:
        """Open a checkout here instead of at the vendor's host, as a browser; return the status."""
        parts = urlsplit(url)
        here = parts._replace(scheme="http", netloc=self.address).geturl()
        if form:
            # The payer's own data are the client's to add.
            return (await self._web.post(here, data={**form, **_PAYER})).status_code
        return (await self._web.get(here)).status_code

    def open_payhere(self, form: dict[str, str]) -> PlacedOrder | None:
        """Show PayHere's page if the form says who pays and its hash is right."""
        secret = hashlib.md5(self._accounts.payhere_secret.encode()).hexdigest().upper()
        text = "".join(form.get(name, "") for name in ("merchant_id", "order_id", "amount"))
        text += form.get("currency", "") + secret
        right = form.get("hash") == hashlib.md5(text.encode()).hexdigest().upper()
        if form.get("merchant_id") != PAYHERE_MERCHANT_ID or not right:
            return None
        if not all(form.get(name) for name in _PAYER):
            return None
        return self._place(
            PlacedOrder(
                gateway="payhere",
                order_id=form["order_id"],
                amount=form["amount"],
                currency_code=form["currency"],
                notify_url=form["notify_url"],
                return_url=form["return_url"],
            )
        )

    def open_kashier(self, query: dict[str, str]) -> PlacedOrder | None:
        """Show Kashier's page if the order's hash is right."""
        order = [query.get(name, "") for name in ("merchantId", "orderId", "amount", "currency")]
        path = f"/?payment={'.'.join(order)}"
        key = self._accounts.kashier_secret.encode()
        right = query.get("hash") == hmac.new(key, path.encode(), hashlib.sha256).hexdigest()
        if order[0] != KASHIER_MERCHANT_ID or query.get("mode") != "test" or not right:
            return None
        return self._place(
            PlacedOrder(
                gateway="kashier",
                order_id=order[1],
                amount=order[2],
                currency_code=order[3],
                notify_url=query["serverWebhook"],
                return_url=query["merchantRedirect"],
            )
        )

    async def tell(
        self, order_id: str, payment: Payment = Payment.PAID, *, wrongly: bool = False
    ) -> httpx.Response:
        """Post a notification to where the checkout said; `wrongly` changes it after signing."""
        order = self.orders[order_id]
        post = self._post(order, payment)
        if wrongly:
            body = post.body.replace(order.amount.encode(), f"9{order.amount}".encode())
            assert body != post.body
            post = replace(post, body=body)
        return await self._web.post(order.notify_url, content=post.body, headers=post.headers)

    def way_back(self, order_id: str) -> str:
        """Return where the browser is sent after paying; Kashier signs ten fields of it."""
        order = self.orders[order_id]
        if order.gateway == "payhere":
            return f"{order.return_url}?{urlencode({'order_id': order_id})}"
        fields = {
            "paymentStatus": "SUCCESS",
            "cardDataToken": "",
            "maskedCard": "******",
            "merchantOrderId": order_id,
            "orderId": f"ko-{order_id}",
            "cardBrand": "Test",
            "orderReference": "TEST-ORD-1",
            "transactionId": _payment_id(order_id),
            "amount": order.amount,
            "currency": order.currency_code,
        }
        text = "&".join(f"{name}={value}" for name, value in fields.items())
        key = self._accounts.kashier_secret.encode()
        signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        query = urlencode({**fields, "signature": signature, "mode": "test"})
        return f"{order.return_url}?{query}"

    def _place(self, order: PlacedOrder) -> PlacedOrder:
        self.orders[order.order_id] = order
        return order

    def _post(self, order: PlacedOrder, payment: Payment) -> SignedPost:
        news = News(
            order_id=order.order_id,
            payment_id=_payment_id(order.order_id),
            payment=payment,
            amount=order.amount,
            currency_code=order.currency_code,
        )
        sign = kashier_post if order.gateway == "kashier" else payhere_post
        return sign(self._accounts, news)


def _payment_id(order_id: str) -> str:
    return f"TX-{order_id[:13]}"

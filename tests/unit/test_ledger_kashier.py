"""Kashier: checkouts, signatures in either order, and what is refused before it is believed."""

import json
from urllib.parse import parse_qs, urlsplit

import pytest

from services.ledger.deposit_errors import SignatureInvalidError, WebhookMalformedError
from services.ledger.domain.deposits import PaymentStatus
from services.ledger.gateways.kashier import Kashier
from tests.support.payment_vectors import (
    KASHIER,
    KASHIER_KEY,
    ONE,
    account,
    kashier_body,
    kashier_sign,
    order,
    posted,
    vectors,
)

# Kashier


def test_kashier_checkout_carries_the_order_hash() -> None:
    wanted = vectors("kashier_order_hash_computed")
    egp = order(order_id="ORDER-0001", amount_minor=15_000, currency_code="EGP")

    url = Kashier().checkout(egp, account(wanted["api_key"], "MID-TEST-1")).url

    parts = urlsplit(url)
    query = {name: value for name, (value,) in parse_qs(parts.query).items()}
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == "https://checkout.kashier.io/"
    assert query["hash"] == wanted["hash"]
    assert (query["mode"], query["amount"], query["orderId"]) == ("test", "150.00", "ORDER-0001")
    assert query["merchantRedirect"] == "https://example.org/back?x=1&y=2"


def test_the_vendors_own_order_hash_is_computed() -> None:
    vendor = ONE["kashier_vendor_order"]

    computed = kashier_sign(vendor["path"], vendor["key"])

    assert computed.startswith(vendor["hash_begins"])
    assert computed.endswith(vendor["hash_ends"])


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize(
    "header", ["x-kashier-signature", "x-kashier-signature_if_keys_not_sorted"]
)
def test_kashier_webhooks_are_verified_in_either_order(index: int, header: str) -> None:
    post, gateway = KASHIER["posts"][index], Kashier()

    read = gateway.read(posted(post["body"], post[header]))

    assert gateway.is_from(read, account(KASHIER_KEY))
    assert not gateway.is_from(read, account("another-key"))
    assert read.signed[0] == post["signed_string_sorted"]
    assert (read.notification.amount_minor, read.notification.currency_code) == (15_000, "EGP")


def test_kashier_statuses_are_those_of_payments_alone() -> None:
    paid, failed, refunded = (
        Kashier().read(posted(post["body"], "x")).notification.status for post in KASHIER["posts"]
    )

    assert paid is PaymentStatus.SUCCEEDED
    assert failed is PaymentStatus.FAILED
    # A refund bears the same signature as its payment: what it says it is proves nothing.
    assert refunded is PaymentStatus.NOT_FOLLOWED


def test_another_order_of_the_keys_does_not_verify() -> None:
    post, gateway = KASHIER["posts"][0], Kashier()
    keys = list(reversed(post["body"]["data"]["signatureKeys"]))
    given = post["x-kashier-signature_if_keys_not_sorted"]

    read = gateway.read(posted(kashier_body(signatureKeys=keys), given))

    assert not gateway.is_from(read, account(KASHIER_KEY))


def test_numbers_are_printed_as_javascript_prints_them() -> None:
    wanted, gateway = ONE["kashier_webhook"], Kashier()
    body = (
        '{"event":"pay","data":{"amount":100.00,"currency":"EGP","kashierOrderId":"k-1",'
        '"merchantOrderId":"ORD 1","status":"SUCCESS","transactionId":"TX-1","signatureKeys":'
        '["amount","currency","kashierOrderId","merchantOrderId","status","transactionId"]}}'
    )
    # The vector's order id has a space, which none of ours has: only the text is compared.
    readable = body.replace("ORD 1", "ORD-1")

    read = gateway.read(posted(readable, wanted["signature"]))

    assert read.signed[0] == wanted["signed"].replace("ORD%201", "ORD-1")
    assert kashier_sign(wanted["signed"], wanted["key"]) == wanted["signature"]
    assert read.notification.amount_minor == 10_000


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("100", "100"),
        ("100.0", "100"),
        ("1e2", "100"),
        ("100.50", "100.5"),
        ("0.10", "0.1"),
        ("true", "true"),
        ("false", "false"),
        ('"a&b=c d~e!\'()*é"', "a%26b%3Dc%20d~e%21%27%28%29%2A%C3%A9"),
        ("-0", "0"),
        ("0.000001", "0.000001"),
    ],
)
def test_a_signed_value_is_printed(text: str, printed: str) -> None:
    body = json.dumps(kashier_body(signatureKeys=[*KEYS, "x"]))
    body = body.replace('"currency"', f'"x": {text}, "currency"', 1)

    read = Kashier().read(posted(body, "s"))

    assert read.signed[0].endswith(f"&x={printed}")


KEYS = ["amount", "currency", "merchantOrderId", "status", "transactionId"]


def test_a_signed_null_is_a_bare_key_and_what_is_absent_is_left_out() -> None:
    body = kashier_body(signatureKeys=[*KEYS, "zero", "absent"], zero=None)

    read = Kashier().read(posted(body, "s"))

    assert read.signed[0].endswith("&transactionId=TX-000000001&zero")


@pytest.mark.parametrize("missing", ["merchantOrderId", "amount", "currency", "status"])
def test_a_signature_over_fewer_keys_is_refused_however_right(missing: str) -> None:
    keys = [key for key in KEYS if key != missing]
    data = kashier_body()["data"]
    signature = kashier_sign("&".join(f"{key}={data[key]}" for key in sorted(keys)))

    with pytest.raises(SignatureInvalidError):
        Kashier().read(posted(kashier_body(signatureKeys=keys), signature))


@pytest.mark.parametrize("keys", [None, "amount", {}, [1, 2], []])
def test_without_a_list_of_keys_there_is_no_signature(keys: object) -> None:
    with pytest.raises(SignatureInvalidError):
        Kashier().read(posted(kashier_body(signatureKeys=keys), "s"))


@pytest.mark.parametrize("signature", [None, ""])
def test_a_kashier_webhook_without_signature_is_refused(signature: str | None) -> None:
    with pytest.raises(SignatureInvalidError):
        Kashier().read(posted(kashier_body(), signature))


@pytest.mark.parametrize(
    ("field", "value"),
    [("amount", "1500.00"), ("merchantOrderId", "ORDER-0002"), ("status", "FAILED"), ("x", 1)],
)
def test_a_changed_kashier_webhook_does_not_verify(field: str, value: object) -> None:
    post, gateway = KASHIER["posts"][0], Kashier()
    body = kashier_body(**{field: value})
    if field == "x":
        body["data"]["signatureKeys"] = [*body["data"]["signatureKeys"], "x"]

    read = gateway.read(posted(body, post["x-kashier-signature"]))

    assert not gateway.is_from(read, account(KASHIER_KEY))


GOOD = json.dumps(kashier_body())


@pytest.mark.parametrize(
    "body",
    [
        GOOD[:-10],
        "",
        "[]",
        "null",
        '{"event":"pay"}',
        '{"event":"pay","data":[]}',
        GOOD.replace('"150.00"', "NaN"),
        GOOD.replace('"150.00"', "1e999999999"),
        GOOD.replace('"150.00"', "1e99999999999999999999999"),
        GOOD.replace('"150.00"', "150.0000000000000001"),
        GOOD.replace('"150.00"', "150.005"),
        GOOD.replace('"150.00"', "-150"),
        GOOD.replace('"150.00"', "{}"),
        GOOD.replace('"150.00"', "null"),
        GOOD.replace('"amount":', '"amount": "1.00", "amount":', 1),
        GOOD.replace("ORDER-0001", "\\ud800"),
        GOOD.replace('"online | e-commerce"', '"\\ud800"'),
        GOOD.replace('"online | e-commerce"', "[1]"),
        GOOD.replace('"channel"]', '"channel", "channel"]'),
        "[" * 60_000,
    ],
)
def test_a_kashier_webhook_that_cannot_be_read_is_refused(body: str) -> None:
    with pytest.raises(WebhookMalformedError):
        Kashier().read(posted(body, "s"))


def test_a_kashier_webhook_of_another_content_type_is_refused() -> None:
    with pytest.raises(WebhookMalformedError):
        Kashier().read(posted(GOOD, "s", "text/plain"))

"""PayHere and Kashier: checkouts, signatures, and what is refused before anything is believed."""

import hashlib
import hmac
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from pydantic import SecretStr

from services.ledger.deposit_errors import SignatureInvalidError, WebhookMalformedError
from services.ledger.deposit_ports import GatewayAccount, Order, WebhookPost
from services.ledger.domain.deposits import GatewayName, PaymentStatus
from services.ledger.gateways import ConfiguredGateways
from services.ledger.gateways.kashier import Kashier
from services.ledger.gateways.payhere import PayHere

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


# PayHere


def test_payhere_checkout_is_the_computed_form() -> None:
    wanted = ONE["payhere_checkout"]
    checkout = PayHere().checkout(order(), account(wanted["secret"], wanted["merchant_id"]))

    assert checkout.url == "https://sandbox.payhere.lk/pay/checkout"
    for name in ("merchant_id", "order_id", "amount", "currency", "hash"):
        assert checkout.form_fields[name] == wanted[name]
    assert checkout.form_fields["notify_url"] == "https://example.org/v1/webhooks/payhere"


def test_payhere_live_accounts_are_sent_to_the_live_page() -> None:
    assert (
        PayHere().checkout(order(), account("secret", live=True)).url
        == "https://www.payhere.lk/pay/checkout"
    )


@pytest.mark.parametrize(
    ("index", "status"),
    [
        (0, PaymentStatus.SUCCEEDED),
        (1, PaymentStatus.NOT_FOLLOWED),
        (2, PaymentStatus.FAILED),
        (3, PaymentStatus.FAILED),
        (4, PaymentStatus.CHARGED_BACK),
    ],
)
def test_payhere_notifications_are_verified(index: int, status: PaymentStatus) -> None:
    gateway = PayHere()
    read = gateway.read(form(PAYHERE["posts"][index]))

    assert gateway.is_from(read, account(PAYHERE["merchant_secret"]))
    assert not gateway.is_from(read, account("another-secret"))
    assert not gateway.is_from(read, account(PAYHERE["merchant_secret"], "1210001"))
    assert read.notification.status is status
    assert (read.notification.amount_minor, read.notification.currency_code) == (34_567, "LKR")
    assert read.notification.payment_id == "320025021815"


def test_the_short_payhere_vector_is_verified() -> None:
    checkout, told = ONE["payhere_checkout"], ONE["payhere_notification"]
    fields = {
        "merchant_id": checkout["merchant_id"],
        "order_id": checkout["order_id"],
        "payment_id": "1",
        "payhere_amount": checkout["amount"],
        "payhere_currency": checkout["currency"],
        **told,
    }
    gateway = PayHere()

    read = gateway.read(form(fields))

    assert gateway.is_from(read, account(checkout["secret"], checkout["merchant_id"]))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("order_id", "Order12346"),
        ("payhere_amount", "345.68"),
        ("payhere_amount", "345.670"),
        ("payhere_currency", "USD"),
        ("status_code", "-1"),
        ("merchant_id", "1210001"),
        ("md5sig", "DF4C94D11C49E45DE9A40EAC6904DFA"),
        ("md5sig", "df4c94d11c49e45de9a40eac6904dfaa"),
        ("md5sig", "Ü"),
    ],
)
def test_a_changed_payhere_notification_does_not_verify(field: str, value: str) -> None:
    gateway = PayHere()
    read = gateway.read(form({**PAYHERE["posts"][0], field: value}))

    assert not gateway.is_from(read, account(PAYHERE["merchant_secret"]))


def test_what_payhere_does_not_sign_is_not_believed_but_read() -> None:
    gateway = PayHere()
    fields = {**PAYHERE["posts"][0], "payment_id": "7", "captured_amount": "9999.00"}

    read = gateway.read(form(fields))

    assert gateway.is_from(read, account(PAYHERE["merchant_secret"]))
    assert read.notification.amount_minor == 34_567


def test_a_payhere_notification_without_signature_is_refused() -> None:
    fields = {**PAYHERE["posts"][0]}
    del fields["md5sig"]
    with pytest.raises(SignatureInvalidError):
        PayHere().read(form(fields))
    with pytest.raises(SignatureInvalidError):
        PayHere().read(form({**fields, "md5sig": ""}))


@pytest.mark.parametrize(
    "post",
    [
        form(PAYHERE["posts"][0], "application/json"),
        form({**PAYHERE["posts"][0], "status_code": "7"}),
        form({**PAYHERE["posts"][0], "payhere_amount": "1,000.00"}),
        form({**PAYHERE["posts"][0], "payhere_amount": "NaN"}),
        form({**PAYHERE["posts"][0], "payhere_amount": "٣٤٥.67"}),
        form({**PAYHERE["posts"][0], "payhere_amount": "1.005"}),
        form({**PAYHERE["posts"][0], "payhere_currency": "lkr"}),
        form({**PAYHERE["posts"][0], "payment_id": ""}),
        form({**PAYHERE["posts"][0], "order_id": "a b"}),
        WebhookPost(
            body=(urlencode(PAYHERE["posts"][0]) + "&status_code=2").encode(),
            content_type=FORM,
            headers={},
        ),
        WebhookPost(body=b"\xff\xfe=1", content_type=FORM, headers={}),
        WebhookPost(body=b"md5sig", content_type=FORM, headers={}),
        WebhookPost(body=b"a=1&" * 1_000 + b"md5sig=1", content_type=FORM, headers={}),
    ],
)
def test_a_payhere_notification_that_cannot_be_read_is_refused(post: WebhookPost) -> None:
    with pytest.raises(WebhookMalformedError):
        PayHere().read(post)


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


# Accounts

TENANT = "0198c000-0000-7000-8000-000000000001"
OTHER = "0198c000-0000-7000-8000-000000000002"


def test_a_tenant_has_the_default_account_unless_it_has_its_own_or_none() -> None:
    gateways = ConfiguredGateways(
        SecretStr(
            json.dumps(
                {
                    "payhere": {
                        "default": {"merchant_id": "1", "secret": "default-secret"},
                        "tenants": {
                            TENANT: {"merchant_id": "2", "secret": "tenant-secret"},
                            OTHER: None,
                        },
                    }
                }
            )
        )
    )

    own = gateways.account(GatewayName.PAYHERE, TENANT)
    usual = gateways.account(GatewayName.PAYHERE, "0198c000-0000-7000-8000-000000000003")

    assert own is not None
    assert usual is not None
    assert (own.merchant_id, usual.merchant_id) == ("2", "1")
    assert gateways.account(GatewayName.PAYHERE, OTHER) is None
    assert gateways.account(GatewayName.KASHIER, TENANT) is None
    assert len(gateways.accounts(GatewayName.PAYHERE)) == 2
    assert "tenant-secret" not in repr(own)


@pytest.mark.parametrize(
    "setting",
    [
        '{"payhere": {"default": {"merchant_id": "1", "secret": "a-real-secret", "mode": "prod"}}}',
        '{"payhere": {"default": {"secret": "a-real-secret"}}}',
        '{"stripe": {"default": {"secret": "a-real-secret"}}}',
        '{"payhere": {"default": {"merchant_id": "1", "secret": "a-real-secret"}',
    ],
)
def test_a_wrong_setting_stops_the_start_without_telling_a_secret(setting: str) -> None:
    with pytest.raises(ValueError, match="the setting of payment gateways is wrong") as caught:
        ConfiguredGateways(SecretStr(setting))

    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert "a-real-secret" not in str(caught.value)

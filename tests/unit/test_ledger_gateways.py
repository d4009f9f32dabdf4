"""PayHere and the accounts at gateways: checkouts, signatures, and what is refused."""

import json
from urllib.parse import urlencode

import pytest
from pydantic import SecretStr

from services.ledger.deposit_errors import SignatureInvalidError, WebhookMalformedError
from services.ledger.deposit_ports import WebhookPost
from services.ledger.domain.deposits import GatewayName, PaymentStatus
from services.ledger.gateways import ConfiguredGateways
from services.ledger.gateways.payhere import PayHere
from tests.support.payment_vectors import (
    FORM,
    ONE,
    PAYHERE,
    account,
    form,
    order,
)

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


def test_a_secret_that_was_changed_still_verifies_and_signs_no_checkout() -> None:
    gateway = PayHere()
    changed = account("the-new-secret", previous_secret=PAYHERE["merchant_secret"])

    assert gateway.is_from(gateway.read(form(PAYHERE["posts"][0])), changed)
    assert gateway.checkout(order(), changed) == gateway.checkout(
        order(), account("the-new-secret")
    )


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

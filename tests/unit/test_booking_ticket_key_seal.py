"""Private keys of tickets are sealed, and never shown."""

import base64
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.booking.domain.issuing import Signer
from services.booking.domain.tickets import public_key_of
from services.booking.ticket_key_seal import AesKeySeal, KeySealBrokenError, KeySecretInvalidError
from tests.support.location_values import OTHER_TENANT, TENANT

SECRET, OTHER_SECRET = bytes(32), bytes(range(32))
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


def test_a_sealed_key_shows_nothing_and_opens_with_any_secret_of_the_ring() -> None:
    sealed = AesKeySeal([SECRET]).seal(KEY, tenant_id=TENANT)

    opened = AesKeySeal([OTHER_SECRET, SECRET]).open(
        sealed, tenant_id=TENANT, public_key=public_key_of(KEY)
    )

    assert KEY.private_bytes_raw() not in sealed
    assert opened.private_bytes_raw() == KEY.private_bytes_raw()
    assert sealed != AesKeySeal([SECRET]).seal(KEY, tenant_id=TENANT)


@pytest.mark.parametrize(
    ("secret", "tenant_id", "public_key", "cut"),
    [
        (OTHER_SECRET, TENANT, public_key_of(KEY), 0),
        (SECRET, OTHER_TENANT, public_key_of(KEY), 0),
        (SECRET, TENANT, bytes(32), 0),
        (SECRET, TENANT, public_key_of(KEY), 1),
        (SECRET, TENANT, public_key_of(KEY), 60),
    ],
    ids=["other secret", "other tenant", "other key", "cut", "empty"],
)
def test_a_seal_that_is_not_this_keys_does_not_open(
    secret: bytes, tenant_id: str, public_key: bytes, cut: int
) -> None:
    sealed = AesKeySeal([SECRET]).seal(KEY, tenant_id=TENANT)

    with pytest.raises(KeySealBrokenError):
        AesKeySeal([secret]).open(
            sealed[: len(sealed) - cut], tenant_id=tenant_id, public_key=public_key
        )


@pytest.mark.parametrize("text", ["", "abc", base64.b64encode(bytes(31)).decode(), "é" * 44])
def test_secrets_that_cannot_be_read_stop_the_start_and_are_not_shown(text: str) -> None:
    good = base64.b64encode(SECRET).decode()

    with pytest.raises(KeySecretInvalidError) as caught:
        AesKeySeal.parse(f"{good},{text}")

    assert str(caught.value) == "ticket key secret 2 is not base64 of 32 bytes"
    AesKeySeal.parse(f"{good}, {good}")


def test_a_signer_does_not_print_its_key() -> None:
    signer = Signer(key_id="00", private_key=KEY, issue_time=datetime(2026, 5, 1, tzinfo=UTC))

    assert "private" not in repr(signer)

"""Travellers are sealed to their row, and keys can be replaced."""

import base64
from dataclasses import replace

import pytest

from services.booking.domain.passengers import SealedTo, Traveller
from services.booking.passenger_vault import (
    KeyRing,
    PassengerKeysInvalidError,
    PassengerSealBrokenError,
    PassengerVault,
)

pytestmark = pytest.mark.unit

_ROW = SealedTo("tenant", "booking", "passenger")
_NOUR = Traveller(full_name="Nour Élan-Håkon", document_kind="PASSPORT", document_number="A1234567")


def _key(number: int) -> str:
    return base64.b64encode(bytes([number]) * 32).decode()


def _vault(text: str) -> PassengerVault:
    return PassengerVault(KeyRing.parse(text))


def test_what_was_sealed_opens_for_its_row() -> None:
    vault = _vault(f"k1:{_key(1)}")

    assert vault.open(vault.seal(_NOUR, _ROW), _ROW) == _NOUR


def test_a_sealed_traveller_shows_nothing_and_is_another_text_each_time() -> None:
    vault = _vault(f"k1:{_key(1)}")

    first, second = vault.seal(_NOUR, _ROW), vault.seal(_NOUR, _ROW)

    assert first != second
    assert b"Nour" not in first
    assert b"A1234567" not in first
    assert "Nour" not in repr(_NOUR)
    assert "A1234567" not in repr(_NOUR)


@pytest.mark.parametrize("field", ["tenant_id", "booking_id", "passenger_id"])
def test_a_sealed_traveller_does_not_open_for_another_row(field: str) -> None:
    vault = _vault(f"k1:{_key(1)}")
    sealed = vault.seal(_NOUR, _ROW)

    with pytest.raises(PassengerSealBrokenError):
        vault.open(sealed, _ROW._replace(**{field: "other"}))


@pytest.mark.parametrize("place", range(0, 60, 3))
def test_a_changed_byte_is_noticed(place: int) -> None:
    vault = _vault(f"k1:{_key(1)}")
    sealed = bytearray(vault.seal(_NOUR, _ROW))
    sealed[place % len(sealed)] ^= 1

    with pytest.raises(PassengerSealBrokenError):
        vault.open(bytes(sealed), _ROW)


def test_a_cut_seal_is_broken() -> None:
    vault = _vault(f"k1:{_key(1)}")
    sealed = vault.seal(_NOUR, _ROW)

    for length in range(len(sealed)):
        with pytest.raises(PassengerSealBrokenError):
            vault.open(sealed[:length], _ROW)


def test_an_old_key_opens_and_the_first_one_seals() -> None:
    sealed = _vault(f"old:{_key(1)}").seal(_NOUR, _ROW)
    rotated = _vault(f"new:{_key(2)},old:{_key(1)}")

    assert rotated.open(sealed, _ROW) == _NOUR
    with pytest.raises(PassengerSealBrokenError):
        _vault(f"old:{_key(1)}").open(rotated.seal(_NOUR, _ROW), _ROW)


@pytest.mark.parametrize(
    "text",
    ["", "k1", f"k1:{_key(1)[:-4]}", "k1:!!!!", f"K 1:{_key(1)}", f"k1:{_key(1)},k1:{_key(2)}"],
)
def test_keys_that_cannot_be_read_are_refused_without_being_told(text: str) -> None:
    with pytest.raises(PassengerKeysInvalidError) as caught:
        KeyRing.parse(text)

    assert "AQEB" not in str(caught.value)


def test_a_key_ring_prints_no_key() -> None:
    ring = KeyRing.parse(f"k1:{_key(1)}")

    assert repr(ring) == "KeyRing(k1)"


def test_all_but_three_characters_of_a_document_are_masked() -> None:
    assert _NOUR.masked_document_number == "*****567"
    assert replace(_NOUR, document_number="567").masked_document_number == "567"
    assert replace(_NOUR, document_number="").masked_document_number == ""

"""Refresh tokens, API keys, page tokens, signing keys and phones: text forms that round-trip."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.identity.domain import ApiKeyId, SessionId, TenantId
from services.identity.errors import PageTokenInvalidError, PhoneInvalidError
from services.identity.paging import decode_page_token, encode_page_token
from services.identity.phones import normalised_phone, parse_phone
from services.identity.signing import (
    Ed25519AccessTokens,
    SigningKeysMissingError,
    load_signing_keys,
)
from services.identity.tokens import (
    ApiKeyText,
    RefreshToken,
    body_hash,
    parse_api_key,
    parse_refresh_token,
)
from tests.support.identity_fakes import FakeIds
from tests.support.identity_process import write_signing_key
from tests.support.identity_values import a_user

uuids = st.uuids().map(str)
secrets = st.binary(min_size=32, max_size=32)


@given(tenant=uuids, session=uuids, generation=st.integers(0, 2**32 - 1), secret=secrets)
def test_a_refresh_token_is_read_as_it_was_written(
    tenant: str, session: str, generation: int, secret: bytes
) -> None:
    token = RefreshToken(
        tenant_id=TenantId(tenant),
        session_id=SessionId(session),
        generation=generation,
        secret=secret,
    )

    assert parse_refresh_token(token.text()) == token
    assert len(token.text()) <= 256


@given(key_id=uuids, secret=secrets)
def test_an_api_key_is_read_as_it_was_written(key_id: str, secret: bytes) -> None:
    api_key = ApiKeyText(key_id=ApiKeyId(key_id), secret=secret)

    assert parse_api_key(api_key.text()) == api_key
    assert len(api_key.text()) <= 128


@given(st.text(max_size=120) | st.text("wfr_ABC-09=", max_size=120))
def test_no_text_breaks_the_readers(text: str) -> None:
    for prefix in ("", "wfr_", "wf_", f"wf_{UUID(int=1)}_"):
        token, api_key = parse_refresh_token(prefix + text), parse_api_key(prefix + text)
        assert token is None or token.text() == prefix + text
        assert api_key is None or api_key.text() == prefix + text
        normalised_phone(prefix + text)
    if text:
        with pytest.raises(PageTokenInvalidError):
            decode_page_token(text, filters={"list": "users"})


@given(last_id=uuids, filters=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3))
def test_a_page_token_works_with_its_own_filters_only(
    last_id: str, filters: dict[str, str]
) -> None:
    token = encode_page_token(last_id, filters=filters)

    assert decode_page_token(token, filters=filters) == last_id
    with pytest.raises(PageTokenInvalidError):
        decode_page_token(token, filters={**filters, "another": "filter"})


def test_bodies_differ_by_every_field() -> None:
    assert body_hash({"a": "1", "b": None}) == body_hash({"b": None, "a": "1"})
    assert body_hash({"a": "1"}) != body_hash({"a": "2"})
    assert body_hash({"a": "12"}) != body_hash({"a": "1", "b": "2"})


@pytest.mark.parametrize("text", ["+441514960001", "+4401514960001"])
def test_one_number_has_one_spelling(text: str) -> None:
    assert parse_phone(text) == normalised_phone(text) == "+441514960001"


@pytest.mark.parametrize("text", ["+44123", "+999123456789", "", "01514960001", "+1 555"])
def test_a_number_of_no_numbering_plan_is_no_phone(text: str) -> None:
    with pytest.raises(PhoneInvalidError):
        parse_phone(text)


def test_the_greatest_key_id_signs_and_all_are_published(tmp_path: Path) -> None:
    for key_id in ("2026-02", "2026-01"):
        write_signing_key(tmp_path, key_id)
    keys = load_signing_keys(tmp_path)
    now = datetime.now(UTC)
    user = a_user(TenantId("tenant"))

    token = Ed25519AccessTokens(keys, FakeIds()).issue(
        user, SessionId("session"), now=now, expire_time=now + timedelta(minutes=15)
    )

    published = {key["kid"]: key for key in json.loads(keys.jwks())["keys"]}
    assert set(published) == {"2026-01", "2026-02"}
    assert all("d" not in key for key in published.values())
    assert jwt.get_unverified_header(token) == {"alg": "EdDSA", "kid": "2026-02", "typ": "JWT"}
    public = jwt.PyJWK(published["2026-02"])
    assert jwt.decode(token, public.key, algorithms=["EdDSA"], audience="wayfare")["sid"]


def test_what_one_key_derives_is_found_again_after_a_newer_one_came(tmp_path: Path) -> None:
    write_signing_key(tmp_path, "2026-01")
    before = load_signing_keys(tmp_path).derive(b"seed", "label")
    write_signing_key(tmp_path, "2026-02")
    keys = load_signing_keys(tmp_path)

    assert keys.derive(b"seed", "label") != before
    assert keys.derive_all(b"seed", "label") == [keys.derive(b"seed", "label"), before]
    assert keys.derive(b"seed", "other") != keys.derive(b"seed", "label")


def test_a_folder_without_a_key_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(SigningKeysMissingError):
        load_signing_keys(tmp_path)


def test_no_private_key_is_printed(tmp_path: Path) -> None:
    write_signing_key(tmp_path, "2026-01")

    assert "derivation" not in repr(load_signing_keys(tmp_path).newest)

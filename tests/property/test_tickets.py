"""Tickets: the service's and the client's verifier, by the same golden examples and rules."""

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from services.booking.domain import tickets as ours
from tests.support.location_values import new_id
from wayfare_client import tickets as theirs

GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "golden" / "tickets.json").read_text()
)
SIGNED_AT = datetime(2026, 1, 1, tzinfo=UTC)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY_ID = ours.key_id_of(ours.public_key_of(KEY))


class Answer(NamedTuple):
    """Is a verdict of either verifier."""

    reason: str
    content: ours.TicketContent | theirs.TicketContent | None


Verifier = Callable[..., Answer]


def _server(
    text: str,
    keys: list[ours.PublishedKey],
    *,
    trip_id: str,
    stop_index: int,
    revoked: tuple[str, ...] = (),
    used: tuple[str, ...] = (),
) -> Answer:
    by_id = {key.key_id: key for key in keys}
    verdict = ours.verify(text, by_id, trip_id=trip_id, stop_index=stop_index)
    reason = verdict.reason
    if reason is None and verdict.content is not None:
        # The rest of the order is that of the store's rows: see operations/scans.py.
        reason = ours.reason_of_state(
            revoked=verdict.content.ticket_id in revoked, used=verdict.content.ticket_id in used
        )
    return Answer(reason or "", verdict.content)


def _client(text: str, keys: list[ours.PublishedKey], **values: Any) -> Answer:
    by_id = {
        key.key_id: theirs.TicketKey(
            key_id=key.key_id,
            public_key=key.public_key,
            sign_start_time=key.sign_start_time,
            sign_end_time=key.sign_end_time,
        )
        for key in keys
    }
    verdict = theirs.verify_ticket(text, by_id, **values)
    return Answer(verdict.reason or "", verdict.content)


both = pytest.mark.parametrize("verifier", [_server, _client])


def _moment(seconds: int | None) -> Any:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _golden_keys() -> list[ours.PublishedKey]:
    return [
        ours.PublishedKey(
            key_id=key["key_id"],
            public_key=bytes.fromhex(key["public_key"]),
            sign_start_time=_moment(key["sign_start"]),
            sign_end_time=_moment(key["sign_end"]),
        )
        for key in GOLDEN["keys"]
    ]


def _published(key: Ed25519PrivateKey = KEY) -> ours.PublishedKey:
    public = ours.public_key_of(key)
    return ours.PublishedKey(
        key_id=ours.key_id_of(public),
        public_key=public,
        sign_start_time=SIGNED_AT - timedelta(days=1),
    )


def _content(**values: Any) -> ours.TicketContent:
    return ours.TicketContent(
        **{
            "key_id": KEY_ID,
            "ticket_id": new_id(),
            "trip_id": new_id(),
            "from_stop_index": 1,
            "to_stop_index": 3,
            "seat_number": "12A",
            "passenger_key": ours.passenger_key_of(new_id()),
            "issue_time": SIGNED_AT,
            "cash_due": False,
            **values,
        }
    )


@both
@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
def test_golden_tickets_get_their_verdicts(verifier: Verifier, case: dict[str, Any]) -> None:
    answer = verifier(
        case["text"],
        _golden_keys(),
        trip_id=GOLDEN["trip_id"],
        stop_index=case["stop_index"],
        revoked=tuple(GOLDEN["revoked"]),
        used=tuple(GOLDEN["used"]),
    )

    assert answer.reason == case["reason"]
    assert (answer.content is not None) == case["has_content"]
    if answer.content is not None:
        assert answer.content.passenger_key.hex() == GOLDEN["passenger_key"]
        assert answer.content.cash_due == case.get("cash_due", False)
        assert answer.content.seat_number == case.get("seat_number", "12A")


def test_the_golden_ticket_is_issued_to_the_byte() -> None:
    issued = GOLDEN["issued"]
    private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(GOLDEN["keys"][0]["private_key"]))
    content = ours.TicketContent(
        key_id=ours.key_id_of(ours.public_key_of(private)),
        ticket_id=issued["ticket_id"],
        trip_id=GOLDEN["trip_id"],
        from_stop_index=issued["from_stop_index"],
        to_stop_index=issued["to_stop_index"],
        seat_number=issued["seat_number"],
        passenger_key=ours.passenger_key_of(GOLDEN["passenger_id"]),
        issue_time=_moment(issued["issue_time"]),
        cash_due=issued["cash_due"],
    )

    code = ours.sign(content, private)

    assert code.hex() == issued["code"]
    assert (ours.qr_text(code), ours.token(code)) == (issued["qr_text"], issued["token"])
    assert (len(ours.qr_text(code)), len(ours.token(code))) == (190, 170)


@both
@given(
    from_stop=st.integers(0, 62),
    length=st.integers(1, 63),
    stop=st.integers(0, 63),
    seat=st.from_regex(r"[A-Z0-9-]{1,8}", fullmatch=True),
    cash=st.booleans(),
    as_token=st.booleans(),
)
def test_what_is_issued_reads_back_and_is_good_on_its_legs_alone(
    verifier: Verifier,
    from_stop: int,
    length: int,
    stop: int,
    seat: str,
    cash: bool,
    as_token: bool,
) -> None:
    to_stop = min(from_stop + length, 63)
    content = _content(
        from_stop_index=from_stop, to_stop_index=to_stop, seat_number=seat, cash_due=cash
    )
    code = ours.sign(content, KEY)
    text = ours.token(code) if as_token else ours.qr_text(code)

    answer = verifier(text, [_published()], trip_id=content.trip_id, stop_index=stop)

    assert answer.reason == ("" if from_stop <= stop < to_stop else "TICKET_OTHER_LEG")
    assert answer.content is not None
    assert all(
        getattr(answer.content, name) == getattr(content, name) for name in content.__slots__
    )


@both
def test_any_changed_bit_is_refused(verifier: Verifier) -> None:
    content = _content()
    code = ours.sign(content, KEY)
    good = verifier(ours.qr_text(code), [_published()], trip_id=content.trip_id, stop_index=1)
    assert good.reason == ""

    for bit in range(len(code) * 8):
        changed = bytearray(code)
        changed[bit // 8] ^= 1 << bit % 8
        text = ours.token(bytes(changed)) if bit % 2 else ours.qr_text(bytes(changed))

        answer = verifier(text, [_published()], trip_id=content.trip_id, stop_index=1)

        assert answer.reason in {
            "TICKET_MALFORMED",
            "TICKET_KEY_UNKNOWN",
            "TICKET_SIGNATURE_INVALID",
        }, bit
        assert answer.content is None


@both
@given(place=st.integers(0, 169), digit=st.characters(max_codepoint=0x2FF), as_token=st.booleans())
def test_any_changed_character_is_refused(
    verifier: Verifier, place: int, digit: str, as_token: bool
) -> None:
    content = _content()
    code = ours.sign(content, KEY)
    text = ours.token(code) if as_token else ours.qr_text(code)
    changed = text[:place] + digit + text[place + 1 :]

    answer = verifier(changed, [_published()], trip_id=content.trip_id, stop_index=1)

    assert (answer.reason == "") == (changed == text)


@both
@given(text=st.text(max_size=256) | st.text("WF1:.ABCDEFabcdef0189 $%*+-/_=", max_size=256))
def test_no_text_of_others_is_a_ticket(verifier: Verifier, text: str) -> None:
    answer = verifier("WF1:" + text, [_published()], trip_id=new_id(), stop_index=0)

    assert (answer.reason, answer.content) == ("TICKET_MALFORMED", None)


@both
def test_another_operators_ticket_is_of_an_unknown_key(verifier: Verifier) -> None:
    stranger = Ed25519PrivateKey.from_private_bytes(bytes(32))
    content = _content(key_id=ours.key_id_of(ours.public_key_of(stranger)))
    text = ours.qr_text(ours.sign(content, stranger))

    answer = verifier(text, [_published()], trip_id=content.trip_id, stop_index=1)

    assert answer.reason == "TICKET_KEY_UNKNOWN"


@given(
    scans=st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from("abc"), st.integers(0, 99)),
        min_size=1,
        max_size=12,
        unique_by=lambda scan: scan[2],
    ),
    seed=st.integers(),
)
def test_the_same_scan_counts_whatever_order_they_arrive_in(
    scans: list[tuple[int, str, int]], seed: int
) -> None:
    made = [
        ours.Precedence(
            scan_time=SIGNED_AT + timedelta(seconds=second),
            device_id=device,
            scan_id=f"{number:02}",
        )
        for second, device, number in scans
    ]
    shuffled = random.Random(seed).sample(made, len(made))
    standing: ours.Precedence | None = None
    for scan in shuffled:
        standing = ours.counted([scan] if standing is None else [standing, scan])

    assert standing == ours.counted(made)
    assert standing is not None
    assert all(standing.scan_time <= scan.scan_time for scan in made)

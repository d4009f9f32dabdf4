"""What a ticket's code is made of, who signed it, and whether it is good here. Pure.

The layout and the order of the checks are those of ticket.proto; clients/python has the same rules
on its own, and tests/golden holds both to the same examples.
"""

import base64
import binascii
import hashlib
import struct
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

VERSION = 1
CODE_BYTES = 124
CONTENT_BYTES = 60
PASSENGER_KEY_BYTES = 8
QR_PREFIX = "WF1:"
TOKEN_PREFIX = "WF1."  # noqa: S105 - the beginning of what everybody may read
_CONTENT = struct.Struct(">B4s16s16sBB8s8sIB")
_SIGNED = b"wayfare-ticket-v1:"
_CASH_DUE = 1
# RFC 9285, section 4.2.
_BASE45 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:"
_BASE45_VALUES = {digit: value for value, digit in enumerate(_BASE45)}
_BYTE_MAX = 0xFF
_PAIR_MAX = 0xFFFF


class ScanReason(StrEnum):
    """Says why a ticket does not let its holder on. The first that applies, in this order."""

    MALFORMED = "TICKET_MALFORMED"
    KEY_UNKNOWN = "TICKET_KEY_UNKNOWN"
    SIGNATURE_INVALID = "TICKET_SIGNATURE_INVALID"
    OTHER_TRIP = "TICKET_OTHER_TRIP"
    OTHER_LEG = "TICKET_OTHER_LEG"
    REVOKED = "TICKET_REVOKED"
    ALREADY_USED = "TICKET_ALREADY_USED"


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketContent:
    """Is what a ticket's code says. Ids are UUIDs in lower case; moments are whole seconds."""

    key_id: str
    ticket_id: str
    trip_id: str
    from_stop_index: int
    to_stop_index: int
    seat_number: str
    passenger_key: bytes
    issue_time: datetime
    cash_due: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedKey:
    """Is a public key and the time in which it signs; `sign_end_time` is None while it does."""

    key_id: str
    public_key: bytes
    sign_start_time: datetime
    sign_end_time: datetime | None = None

    def signs_at(self, moment: datetime) -> bool:
        """Say whether it signs at `moment`."""
        return self.sign_start_time <= moment and (
            self.sign_end_time is None or moment < self.sign_end_time
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Says what a code is worth. `content` is None when it is not surely one of ours."""

    content: TicketContent | None = None
    reason: ScanReason | None = None


def key_id_of(public_key: bytes) -> str:
    """Return the id of a public key of 32 bytes: 8 hexadecimal digits."""
    return hashlib.sha256(public_key).digest()[:4].hex()


def public_key_of(private_key: Ed25519PrivateKey) -> bytes:
    """Return the 32 bytes of its public key."""
    return private_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def passenger_key_of(passenger_id: str) -> bytes:
    """Return the 8 bytes by which a code finds its passenger on the manifest."""
    return hashlib.sha256(uuid.UUID(passenger_id).bytes).digest()[:PASSENGER_KEY_BYTES]


def encode(content: TicketContent) -> bytes:
    """Return the 60 bytes that are signed. Raises ValueError for what does not fit the layout."""
    if not 0 <= content.from_stop_index < content.to_stop_index <= _BYTE_MAX:
        raise ValueError("a ticket leads from a stop to a later one")
    seat = content.seat_number.encode("ascii")
    if not 1 <= len(seat) <= 8:
        raise ValueError("a seat number has 1 to 8 characters")
    return _CONTENT.pack(
        VERSION,
        bytes.fromhex(content.key_id),
        uuid.UUID(content.ticket_id).bytes,
        uuid.UUID(content.trip_id).bytes,
        content.from_stop_index,
        content.to_stop_index,
        seat,
        content.passenger_key,
        int(content.issue_time.timestamp()),
        _CASH_DUE if content.cash_due else 0,
    )


def sign(content: TicketContent, private_key: Ed25519PrivateKey) -> bytes:
    """Return the whole code: 124 bytes. About 50 µs."""
    packed = encode(content)
    return packed + private_key.sign(_SIGNED + packed)


def decode(code: bytes) -> TicketContent | None:
    """Return what a code says, whoever signed it; None if it is not of this layout."""
    if len(code) != CODE_BYTES or code[0] != VERSION:
        return None
    _, key_id, ticket_id, trip_id, from_stop, to_stop, seat, passenger_key, issued, flags = (
        _CONTENT.unpack_from(code)
    )
    return TicketContent(
        key_id=key_id.hex(),
        ticket_id=str(uuid.UUID(bytes=ticket_id)),
        trip_id=str(uuid.UUID(bytes=trip_id)),
        from_stop_index=from_stop,
        to_stop_index=to_stop,
        seat_number=seat.rstrip(b"\0").decode("ascii", errors="replace"),
        passenger_key=passenger_key,
        issue_time=datetime.fromtimestamp(issued, UTC),
        cash_due=bool(flags & _CASH_DUE),
    )


def verify(
    text: str, keys: Mapping[str, PublishedKey], *, trip_id: str, stop_index: int
) -> Verdict:
    """Return what a scanned text is worth on `trip_id` at `stop_index`, revocation and use aside.

    `keys` are the tenant's by their ids. About 0.2 ms, nearly all of it the signature.
    """
    code = read_text(text)
    content = decode(code) if code is not None else None
    if code is None or content is None:
        return Verdict(reason=ScanReason.MALFORMED)
    key = keys.get(content.key_id)
    if key is None or not key.signs_at(content.issue_time):
        return Verdict(reason=ScanReason.KEY_UNKNOWN)
    try:
        Ed25519PublicKey.from_public_bytes(key.public_key).verify(
            code[CONTENT_BYTES:], _SIGNED + code[:CONTENT_BYTES]
        )
    except InvalidSignature:
        return Verdict(reason=ScanReason.SIGNATURE_INVALID)
    if content.trip_id != trip_id:
        return Verdict(content=content, reason=ScanReason.OTHER_TRIP)
    if not content.from_stop_index <= stop_index < content.to_stop_index:
        return Verdict(content=content, reason=ScanReason.OTHER_LEG)
    return Verdict(content=content)


def qr_text(code: bytes) -> str:
    """Return the text of the QR code: 190 characters of its alphanumeric mode."""
    return QR_PREFIX + _to_base45(code)


def token(code: bytes) -> str:
    """Return the text for links and JSON: 170 characters."""
    return TOKEN_PREFIX + base64.urlsafe_b64encode(code).rstrip(b"=").decode()


def read_text(text: str) -> bytes | None:
    """Return the bytes of either text; None if it is neither, or not written in the one right way.

    There is exactly one text of each kind for a code, so that a changed character is never passed
    over.
    """
    body = text[len(QR_PREFIX) :]
    if text.startswith(QR_PREFIX):
        return _from_base45(body)
    if not text.startswith(TOKEN_PREFIX) or not body.isascii():
        return None
    try:
        code = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return code if token(code) == text else None


def key_id_in(text: str) -> str:
    """Return the id of the key that a text names, "" if it is no ticket."""
    code = read_text(text)
    content = decode(code) if code is not None else None
    return "" if content is None else content.key_id


def _to_base45(data: bytes) -> str:
    digits = []
    for start in range(0, len(data) - 1, 2):
        high, low = divmod(data[start] * 256 + data[start + 1], 45 * 45)
        digits += [_BASE45[low % 45], _BASE45[low // 45], _BASE45[high]]
    if len(data) % 2:
        digits += [_BASE45[data[-1] % 45], _BASE45[data[-1] // 45]]
    return "".join(digits)


def _from_base45(text: str) -> bytes | None:
    values = [_BASE45_VALUES.get(digit, -1) for digit in text]
    if -1 in values or len(values) % 3 == 1:
        return None
    data = bytearray()
    for start in range(0, len(values) - 2, 3):
        low, middle, high = values[start : start + 3]
        pair = low + 45 * middle + 45 * 45 * high
        if pair > _PAIR_MAX:
            return None
        data += pair.to_bytes(2, "big")
    if len(values) % 3:
        last = values[-2] + 45 * values[-1]
        if last > _BYTE_MAX:
            return None
        data.append(last)
    return bytes(data)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Precedence:
    """Orders the boarding scans of one ticket: the smallest counts, however late it arrives."""

    scan_time: datetime
    device_id: str
    scan_id: str


def counted(scans: Iterable[Precedence]) -> Precedence | None:
    """Return the scan of one ticket that counts: the earliest, whatever the order."""
    return min(scans, default=None)


def reason_of_state(*, revoked: bool, used: bool) -> ScanReason | None:
    """Return why a ticket that is good by its code is not good any more."""
    if revoked:
        return ScanReason.REVOKED
    return ScanReason.ALREADY_USED if used else None

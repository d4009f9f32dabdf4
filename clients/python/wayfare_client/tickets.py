"""Verifies tickets without a network. Conductors' apps use it; see `TripScanner`.

The layout of a code and the order of the checks stand in wayfare/booking/v1/ticket.proto. Nothing
here calls a server: keys, revocations and the manifest are fetched before the trip. It needs
`cryptography`.
"""

import base64
import binascii
import hashlib
import struct
import uuid
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from wayfare.booking.v1 import ticket_pb2

_LAYOUT = struct.Struct(">B4s16s16sBB8s8sIB")
_SIGNED = b"wayfare-ticket-v1:"
_VERSION = 1
_TICKET_BYTES = 124
_CASH_DUE = 1
_TEXT_MAX = 256
_DIGITS = {
    digit: value for value, digit in enumerate("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:")
}


class TicketReason(StrEnum):
    """Says why a ticket is not good. The first that applies, in this order."""

    MALFORMED = "TICKET_MALFORMED"
    KEY_UNKNOWN = "TICKET_KEY_UNKNOWN"
    SIGNATURE_INVALID = "TICKET_SIGNATURE_INVALID"
    OTHER_TRIP = "TICKET_OTHER_TRIP"
    OTHER_LEG = "TICKET_OTHER_LEG"
    REVOKED = "TICKET_REVOKED"
    ALREADY_USED = "TICKET_ALREADY_USED"


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketKey:
    """Is a public key of ListTicketKeys and the time in which it signs."""

    key_id: str
    public_key: bytes
    sign_start_time: datetime
    sign_end_time: datetime | None = None

    @classmethod
    def of(cls, message: ticket_pb2.TicketKey) -> Self:
        """Return the key that ListTicketKeys told of.

        Raises:
            ValueError: the key's id is not that of its bytes.
        """
        key_id = hashlib.sha256(message.public_key).digest()[:4].hex()
        if key_id != message.key_id:
            raise ValueError(f"the id {message.key_id} is not that of the key {key_id}")
        ends = message.HasField("sign_end_time")
        return cls(
            key_id=key_id,
            public_key=message.public_key,
            sign_start_time=message.sign_start_time.ToDatetime(UTC),
            sign_end_time=message.sign_end_time.ToDatetime(UTC) if ends else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketContent:
    """Is what a ticket's code says. `passenger_key` finds the passenger on the manifest."""

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
class TicketVerdict:
    """Says whether a ticket is good; `content` is None when it is surely none of the operator's."""

    reason: TicketReason | None = None
    content: TicketContent | None = None

    @property
    def accepted(self) -> bool:
        """Return whether its holder may travel."""
        return self.reason is None


def verify_ticket(
    text: str,
    keys: Mapping[str, TicketKey],
    *,
    trip_id: str,
    stop_index: int,
    revoked: Collection[str] = (),
    used: Collection[str] = (),
) -> TicketVerdict:
    """Return whether a scanned text is a good ticket for `trip_id` at `stop_index`.

    Pure, and under a millisecond. `keys` are those of the operator by their ids; `revoked` are the
    ids of revoked tickets, `used` those that were boarded with: leave it empty for an inspection.
    """
    code = _read(text)
    if code is None:
        return TicketVerdict(reason=TicketReason.MALFORMED)
    content = _content(code)
    key = keys.get(content.key_id)
    if key is None or not _signs_at(key, content.issue_time):
        return TicketVerdict(reason=TicketReason.KEY_UNKNOWN)
    size = _LAYOUT.size
    try:
        Ed25519PublicKey.from_public_bytes(key.public_key).verify(
            code[size:], _SIGNED + code[:size]
        )
    except InvalidSignature:
        return TicketVerdict(reason=TicketReason.SIGNATURE_INVALID)
    reason = None
    if content.trip_id != trip_id:
        reason = TicketReason.OTHER_TRIP
    elif not content.from_stop_index <= stop_index < content.to_stop_index:
        reason = TicketReason.OTHER_LEG
    elif content.ticket_id in revoked:
        reason = TicketReason.REVOKED
    elif content.ticket_id in used:
        reason = TicketReason.ALREADY_USED
    return TicketVerdict(reason=reason, content=content)


def read_ticket(text: str) -> TicketContent | None:
    """Return what a text says without asking who signed it; None if it is no ticket."""
    code = _read(text)
    return None if code is None else _content(code)


class TripScanner:
    """Scans on one trip without a network, and remembers what is to be reported.

    Feed it with `learn_keys` and `learn_revocations` while there is a network; `scan` needs none.
    `pending` are the scans for ReportScans; `reported` forgets them. What it knows survives a
    restart of the app through `pending` and `used`.
    """

    def __init__(
        self,
        trip_id: str,
        *,
        used: Iterable[str] = (),
        pending: Iterable[ticket_pb2.Scan] = (),
    ) -> None:
        """Begin with the tickets that were used, and the scans that were not reported, before."""
        self.trip_id = trip_id
        self.keys: dict[str, TicketKey] = {}
        self.revoked: set[str] = set()
        self.used: set[str] = set(used)
        self._pending = {scan.scan_id: scan for scan in pending}

    @property
    def pending(self) -> list[ticket_pb2.Scan]:
        """Return the scans that are to be reported, oldest first."""
        return list(self._pending.values())

    def learn_keys(self, keys: Iterable[ticket_pb2.TicketKey]) -> None:
        """Take the keys of ListTicketKeys; those known before stay."""
        self.keys.update((key.key_id, key) for key in map(TicketKey.of, keys))

    def learn_revocations(self, revocations: Iterable[ticket_pb2.TicketRevocation]) -> None:
        """Take what ListTicketRevocations answered."""
        self.revoked.update(revocation.ticket_id for revocation in revocations)

    def scan(
        self,
        text: str,
        *,
        stop_index: int,
        kind: ticket_pb2.ScanKind.ValueType = ticket_pb2.SCAN_KIND_BOARD,
        now: datetime | None = None,
        scan_id: str | None = None,
    ) -> TicketVerdict:
        """Decide at once, and remember the scan for the report.

        A boarding scan that is accepted uses the ticket: the same code again is ALREADY_USED here,
        and on other phones as soon as both have reported.
        """
        boards = kind == ticket_pb2.SCAN_KIND_BOARD
        verdict = verify_ticket(
            text,
            self.keys,
            trip_id=self.trip_id,
            stop_index=stop_index,
            revoked=self.revoked,
            used=self.used if boards else (),
        )
        if boards and verdict.accepted and verdict.content is not None:
            self.used.add(verdict.content.ticket_id)
        scan = ticket_pb2.Scan(
            scan_id=scan_id or str(uuid.uuid4()),
            # What is longer is no ticket, and would be refused.
            ticket=text[:_TEXT_MAX] or " ",
            kind=kind,
            stop_index=stop_index,
            accepted_offline=verdict.accepted,
        )
        scan.scan_time.FromDatetime(now or datetime.now(UTC))
        self._pending[scan.scan_id] = scan
        return verdict

    def reported(self, results: Iterable[ticket_pb2.ScanResult]) -> None:
        """Forget the scans that ReportScans answered, and learn which tickets are used."""
        for result in results:
            self._pending.pop(result.scan_id, None)
            if result.reason == TicketReason.ALREADY_USED:
                self.used.add(result.ticket_id)


def _signs_at(key: TicketKey, moment: datetime) -> bool:
    ended = key.sign_end_time is not None and moment >= key.sign_end_time
    return key.sign_start_time <= moment and not ended


def _content(code: bytes) -> TicketContent:
    _, key_id, ticket_id, trip_id, from_stop, to_stop, seat, passenger_key, issued, flags = (
        _LAYOUT.unpack_from(code)
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


def _read(text: str) -> bytes | None:
    """Return the bytes of a ticket; None for what is none. Each has one text of either kind."""
    prefix, body = text[:4], text[4:]
    code = None
    if prefix == "WF1:":
        code = _from_base45(body)
    elif prefix == "WF1." and body.isascii():
        code = _from_base64url(body)
    if code is None or len(code) != _TICKET_BYTES or code[0] != _VERSION:
        return None
    return code


def _from_base64url(text: str) -> bytes | None:
    try:
        code = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return code if base64.urlsafe_b64encode(code).rstrip(b"=") == text.encode() else None


def _from_base45(text: str) -> bytes | None:
    """Read base 45 (RFC 9285) of an even number of bytes, as a ticket has."""
    if len(text) % 3:
        return None
    code = bytearray()
    for start in range(0, len(text), 3):
        values = [_DIGITS.get(digit, -1) for digit in text[start : start + 3]]
        pair = values[0] + 45 * values[1] + 45 * 45 * values[2]
        if min(values) < 0 or pair > 0xFFFF:
            return None
        code += pair.to_bytes(2, "big")
    return bytes(code)

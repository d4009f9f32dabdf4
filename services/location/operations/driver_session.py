"""Holds one driver's session: which messages are new, what is refused, what must be told.

Knows no RPC: driver_stream.py reads and writes the stream. Called once per message, so it is kept
lean.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from services.location.domain.positions import Fix, PositionGate, Refusal
from services.location.domain.trips import STATUS_MOVES, TripStatus
from services.location.errors import (
    NotTheTripDriverError,
    SessionSupersededError,
    StreamTokenExpiredError,
)
from services.location.operations.batcher import UpdateBatcher
from services.location.ports.live import (
    BOARDING,
    MISSING,
    OLD,
    POSITION,
    REPLACED,
    STATUS,
    SUPERSEDED,
    TRIP_OVER,
    Publisher,
    Update,
)
from services.shared.errors import DependencyUnavailableError, DomainError, OverloadedError

REJECTED_MAX = 500
UNACKNOWLEDGED_MAX = 64


@dataclass(frozen=True, slots=True)
class Rejected:
    """Says that a message was refused, and why."""

    seq: int
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """Says what has been decided, up to and including `seq`."""

    seq: int
    rejected: Sequence[Rejected]


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttle:
    """Asks to send less often; an empty reason says that all is well again."""

    reason: str
    degraded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Asks to open a new stream."""

    reconnect_after_seconds: float
    reason: str


class Heartbeat:
    """Shows that the stream is alive."""


Reply = Ack | Throttle | Drain | Heartbeat


class DriverSession:
    """Is the session of one driver on this server."""

    def __init__(
        self,
        *,
        publisher: Publisher,
        session: str,
        trip_id: str,
        trip_status: TripStatus,
        resume_seq: int,
        gate: PositionGate,
        batcher: UpdateBatcher,
        token_expire_time: datetime | None,
        on_refused: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Begin after `resume_seq`; submit to `batcher` what `gate` lets pass.

        `on_refused` is told the tenant for each refused message.
        """
        self.publisher = publisher
        self.session = session
        self.trip_id = trip_id
        self.token_expire_time = token_expire_time
        self._trip_status = trip_status
        self._gate = gate
        self._batcher = batcher
        self._on_refused = on_refused
        self.newest_payload = b""
        self._received_seq = resume_seq
        self._decided_seq = resume_seq
        self._acknowledged_seq = resume_seq
        self._in_flight = 0
        self._rejected: list[Rejected] = []
        self._ack_due = False
        self._heartbeat_due = False
        self._notices: dict[type, Throttle | Drain] = {}
        self._waiter: asyncio.Future[None] | None = None
        self._said_something = False
        self._drained = False
        self._fenced_off = False
        self.error: DomainError | None = None

    @property
    def in_flight(self) -> int:
        """Count the updates that wait to be decided."""
        return self._in_flight

    def receive_position(self, seq: int, fix: Fix, payload: bytes, now_milliseconds: int) -> None:
        """Take one position; `payload` is what followers are to get."""
        if not self._is_new(seq):
            return
        refusal = self._gate.judge(fix, now_milliseconds)
        if refusal is not None:
            self.refuse(seq, refusal.value)
            return
        self.newest_payload = payload
        self._submit(seq, POSITION, payload, fix=fix)

    def receive_status(
        self, seq: int, status: TripStatus, payload: bytes, alert_payload: bytes = b""
    ) -> None:
        """Take a new status of the trip, and what staff is alerted of with it."""
        if not self._is_new(seq):
            return
        if not self.trip_id:
            self.refuse(seq, Refusal.TRIP_REQUIRED.value)
        elif status not in STATUS_MOVES[self._trip_status]:
            self.refuse(seq, Refusal.STATUS_NOT_ALLOWED.value, f"the trip is {self._trip_status}")
        else:
            self._trip_status = status
            self._submit(seq, STATUS, payload, status=status.value, alert_payload=alert_payload)

    def receive_boarding(self, seq: int, payload: bytes) -> None:
        """Take a new count of passengers."""
        if not self._is_new(seq):
            return
        if not self.trip_id:
            self.refuse(seq, Refusal.TRIP_REQUIRED.value)
        else:
            self._submit(seq, BOARDING, payload)

    def refuse(self, seq: int, reason: str, detail: str = "") -> None:
        """Refuse a message; 0 stands for one whose number could not be read."""
        if self.error is not None:
            return
        if len(self._rejected) + self._in_flight >= REJECTED_MAX:
            # Dropped, it would count as accepted; not received, the phone sends it again.
            if seq == self._received_seq:
                self._received_seq -= 1
            self.end(
                OverloadedError(
                    "too many refused messages wait to be told; open a new stream",
                    retry_after_seconds=1.0,
                )
            )
            return
        self._received_seq = max(self._received_seq, seq)
        self._rejected.append(Rejected(seq, reason, detail))
        self._on_refused(self.publisher.tenant_id)
        if not self._in_flight:
            self._decided_seq = self._received_seq
            self._acknowledge_now()

    def decided(self, update: Update, verdict: str) -> None:
        """Take the store's verdict on an update."""
        self._in_flight -= 1
        ending = self._ending_of(verdict)
        if ending is not None:
            self.end(ending)
            self._fenced_off = True
        if self._fenced_off:
            # Not written, so not decided: the phone sends it again over its next stream.
            return
        self._decided_seq = update.seq if self._in_flight else self._received_seq
        if verdict == OLD:
            self._rejected.append(Rejected(update.seq, Refusal.TOO_OLD.value))
        elif verdict == TRIP_OVER:
            self._rejected.append(Rejected(update.seq, Refusal.TRIP_NOT_TRACKED.value))
        if (
            any(rejected.seq <= self._decided_seq for rejected in self._rejected)
            or update.kind != POSITION
            or self._decided_seq - self._acknowledged_seq >= UNACKNOWLEDGED_MAX
        ):
            self._acknowledge_now()

    def _ending_of(self, verdict: str) -> DomainError | None:
        """Return the error that ends the session, if the store takes nothing of it any more."""
        if verdict == SUPERSEDED:
            return SessionSupersededError(self.session)
        if verdict == REPLACED:
            return NotTheTripDriverError(self.trip_id)
        if verdict == MISSING:
            # The store lost the session: the phone opens a new one.
            return DependencyUnavailableError("valkey", retry_after_seconds=0.2)
        return None

    def acknowledge_if_due(self) -> None:
        """Say what has been decided since the last time, if anything."""
        if self._decided_seq > self._acknowledged_seq:
            self._acknowledge_now()

    def beat(self) -> None:
        """Say something if nothing was said since the last beat."""
        if not self._said_something:
            self._heartbeat_due = True
            self.wake_writer()
        self._said_something = False

    def throttle(self, throttle: Throttle) -> None:
        """Ask the phone to send less often, or as usual again."""
        self._notices[Throttle] = throttle
        self.wake_writer()

    def drain(self, drain: Drain) -> None:
        """Ask the phone to open a new stream. Said once."""
        if not self._drained:
            self._drained = True
            self._notices[Drain] = drain
            self.wake_writer()

    def end(self, error: DomainError) -> None:
        """End the stream with `error`, after what is due has been said."""
        if self.error is None:
            self.error = error
            self.wake_writer()

    def expire_token(self) -> None:
        """End the stream because its token has expired."""
        self.end(StreamTokenExpiredError("the access token of this stream has expired"))

    def take_replies(self) -> list[Reply]:
        """Return what must be said now; acknowledgements are gathered until they are taken."""
        replies: list[Reply] = []
        if self._ack_due:
            self._ack_due = False
            self._acknowledged_seq = self._decided_seq
            replies.append(Ack(seq=self._decided_seq, rejected=self._take_rejected()))
        if self._notices:
            replies.extend(self._notices.values())
            self._notices = {}
        if self._heartbeat_due:
            self._heartbeat_due = False
            if not replies:
                replies.append(Heartbeat())
        self._said_something = self._said_something or bool(replies)
        return replies

    def _take_rejected(self) -> list[Rejected]:
        """Return the refusals up to the mark; those above it wait for what was sent before them."""
        rejected, self._rejected = self._rejected, []
        if self._decided_seq < self._received_seq and rejected:
            self._rejected = [one for one in rejected if one.seq > self._decided_seq]
            rejected = [one for one in rejected if one.seq <= self._decided_seq]
        return rejected

    async def wait_for_replies(self) -> None:
        """Wait until something must be said, or the stream must end."""
        if self._ack_due or self._notices or self._heartbeat_due or self.error is not None:
            return
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def wait_decided(self) -> None:
        """Wait until the store has decided all that was submitted."""
        while self._in_flight and self.error is None:
            await self._batcher.wait_flushed()

    async def wait_for_room(self, in_flight_max: int) -> None:
        """Wait until another update may be submitted; the phone feels it as back-pressure."""
        while self._in_flight >= in_flight_max or not self._batcher.has_room:
            await self._batcher.wait_flushed()

    def _is_new(self, seq: int) -> bool:
        if self.error is not None:
            # The stream ends: the phone sends again what is not decided.
            return False
        if seq <= 0:
            self.refuse(0, Refusal.SEQ_OUT_OF_ORDER.value, "seq begins at 1")
            return False
        if seq <= self._received_seq:
            # Sent again: acknowledged again once it is decided, otherwise ignored.
            if seq <= self._decided_seq:
                self._acknowledge_now()
            return False
        self._received_seq = seq
        return True

    def _submit(
        self,
        seq: int,
        kind: str,
        payload: bytes,
        *,
        fix: Fix | None = None,
        status: str = "",
        alert_payload: bytes = b"",
    ) -> None:
        self._in_flight += 1
        update = Update(
            self.publisher,
            self.session,
            seq,
            kind,
            self.trip_id,
            payload,
            fix,
            status,
            alert_payload,
        )
        self._batcher.add(update, self)

    def _acknowledge_now(self) -> None:
        self._ack_due = True
        self.wake_writer()

    def wake_writer(self) -> None:
        """Let the stream's writer look what there is."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

"""What a driver's session takes, refuses, and says."""

import asyncio

import pytest

from services.location.domain.positions import Fix, PositionGate, PositionRules
from services.location.domain.trips import TripStatus
from services.location.errors import NotTheTripDriverError, SessionSupersededError
from services.location.operations.batcher import Submitter, UpdateBatcher
from services.location.operations.driver_session import (
    REJECTED_MAX,
    UNACKNOWLEDGED_MAX,
    Ack,
    Drain,
    DriverSession,
    Heartbeat,
    Rejected,
    Throttle,
)
from services.location.ports.live import Update
from services.shared.errors import DependencyUnavailableError
from tests.support.location_fakes import MemoryLiveStore
from tests.support.location_values import LATITUDE, LONGITUDE, a_publisher

NOW = 1_772_366_400_000


class ManualBatcher(UpdateBatcher):
    """Keeps what is submitted until the test decides."""

    def __init__(self) -> None:
        super().__init__(
            live=MemoryLiveStore(), tick_seconds=0.01, pending_max=100, on_degraded=lambda _: None
        )
        self.waiting: list[tuple[Update, Submitter]] = []

    def add(self, update: Update, submitter: Submitter) -> None:
        self.waiting.append((update, submitter))

    def decide(self, *verdicts: str) -> None:
        for verdict in verdicts:
            update, submitter = self.waiting.pop(0)
            submitter.decided(update, verdict)


class Driving:
    """A session and what it submitted."""

    def __init__(self, *, resume_seq: int = 0, trip_id: str = "trip", status: str = "") -> None:
        self.batcher = ManualBatcher()
        self.session = DriverSession(
            publisher=a_publisher("driver"),
            session="7",
            trip_id=trip_id,
            trip_status=TripStatus(status),
            resume_seq=resume_seq,
            gate=PositionGate(PositionRules(positions_per_minute=600)),
            batcher=self.batcher,
            token_expire_time=None,
        )

    def send(self, *seqs: int) -> None:
        """Send good positions, each captured `seq` seconds after the beginning."""
        for seq in seqs:
            self.session.receive_position(
                seq, Fix(LATITUDE, LONGITUDE, NOW + seq * 1000), b"payload", NOW + seq * 1000
            )

    def send_old(self, seq: int) -> None:
        self.session.receive_position(seq, Fix(LATITUDE, LONGITUDE, 5), b"payload", NOW)

    def acks(self) -> list[Ack]:
        return [reply for reply in self.session.take_replies() if isinstance(reply, Ack)]


def test_an_accepted_position_is_acknowledged_when_it_is_due() -> None:
    driving = Driving()
    driving.send(1, 2)
    driving.batcher.decide("A", "A")
    assert not driving.acks()

    driving.session.acknowledge_if_due()

    assert driving.acks() == [Ack(seq=2, rejected=[])]


def test_nothing_is_acknowledged_before_it_is_decided() -> None:
    driving = Driving()
    driving.send(1, 2)
    driving.batcher.decide("A")
    driving.session.acknowledge_if_due()
    assert driving.acks() == [Ack(seq=1, rejected=[])]

    driving.session.acknowledge_if_due()

    assert not driving.acks()


def test_many_accepted_positions_are_acknowledged_at_once() -> None:
    driving = Driving()
    driving.send(*range(1, UNACKNOWLEDGED_MAX + 1))

    driving.batcher.decide(*"A" * UNACKNOWLEDGED_MAX)

    assert driving.acks() == [Ack(seq=UNACKNOWLEDGED_MAX, rejected=[])]


def test_a_status_is_acknowledged_at_once() -> None:
    driving = Driving()
    driving.session.receive_status(1, TripStatus.STARTED, b"payload")

    driving.batcher.decide("A")

    assert driving.acks() == [Ack(seq=1, rejected=[])]


def test_a_number_that_came_before_is_acknowledged_again_and_not_submitted() -> None:
    driving = Driving(resume_seq=5)

    driving.send(3)

    assert driving.acks() == [Ack(seq=5, rejected=[])]
    assert not driving.batcher.waiting


def test_a_number_that_waits_is_not_submitted_twice() -> None:
    driving = Driving()

    driving.send(1, 1)

    assert len(driving.batcher.waiting) == 1
    assert not driving.acks()


def test_a_duplicate_for_the_store_counts_as_decided() -> None:
    driving = Driving()
    driving.send(1)
    driving.batcher.decide("D")
    driving.session.acknowledge_if_due()

    assert driving.acks() == [Ack(seq=1, rejected=[])]


@pytest.mark.parametrize(
    ("verdict", "reason"), [("O", "POSITION_TOO_OLD"), ("N", "TRIP_NOT_TRACKED")]
)
def test_what_the_store_refuses_is_refused_with_its_reason(verdict: str, reason: str) -> None:
    driving = Driving()
    driving.send(1)

    driving.batcher.decide(verdict)

    assert driving.acks() == [Ack(seq=1, rejected=[Rejected(1, reason)])]


def test_a_refusal_is_told_at_once_when_nothing_waits() -> None:
    driving = Driving()

    driving.send_old(1)

    assert driving.acks() == [Ack(seq=1, rejected=[Rejected(1, "POSITION_TOO_OLD")])]


def test_a_refusal_waits_for_what_was_sent_before_it() -> None:
    driving = Driving()
    driving.send(1, 2)
    driving.send_old(3)
    assert not driving.acks()

    driving.batcher.decide("A")
    driving.session.acknowledge_if_due()
    # The mark is 1: a refusal of 3 is above it.
    assert driving.acks() == [Ack(seq=1, rejected=[])]

    driving.batcher.decide("A")
    assert driving.acks() == [Ack(seq=3, rejected=[Rejected(3, "POSITION_TOO_OLD")])]


def test_a_message_whose_number_cannot_be_read_is_refused_as_0() -> None:
    driving = Driving()
    driving.session.refuse(0, "MESSAGE_MALFORMED", "no message")

    assert driving.acks() == [Ack(seq=0, rejected=[Rejected(0, "MESSAGE_MALFORMED", "no message")])]


def test_the_number_0_on_a_position_is_out_of_order() -> None:
    driving = Driving()
    driving.send(0)

    assert [r.reason for r in driving.acks()[0].rejected] == ["SEQ_OUT_OF_ORDER"]


@pytest.mark.parametrize("verdict", ["S", "R", "M"])
@pytest.mark.parametrize("kind", ["position", "status"])
def test_what_was_not_decided_is_never_acknowledged(verdict: str, kind: str) -> None:
    driving = Driving(resume_seq=4)
    if kind == "position":
        driving.send(5)
    else:
        driving.session.receive_status(5, TripStatus.STARTED, b"payload")
    driving.batcher.decide(verdict)
    driving.session.acknowledge_if_due()

    assert not driving.acks()


@pytest.mark.parametrize(
    ("verdict", "error"),
    [
        ("S", SessionSupersededError),
        ("R", NotTheTripDriverError),
        ("M", DependencyUnavailableError),
    ],
)
def test_a_session_that_lost_its_place_ends(verdict: str, error: type[Exception]) -> None:
    driving = Driving()
    driving.send(1)
    driving.batcher.decide(verdict)

    assert isinstance(driving.session.error, error)


def test_after_its_end_a_session_takes_nothing() -> None:
    driving = Driving()
    driving.send(1)
    driving.batcher.decide("S")

    driving.send(2)
    driving.send_old(3)

    assert not driving.batcher.waiting
    assert not driving.acks()


def test_refusals_are_bounded_and_none_is_taken_for_accepted() -> None:
    driving = Driving()
    driving.send(1)
    for seq in range(2, REJECTED_MAX + 100):
        driving.send_old(seq)
    driving.batcher.decide("A")

    (ack,) = driving.acks()

    assert len(ack.rejected) <= REJECTED_MAX
    assert {rejected.seq for rejected in ack.rejected} == set(range(2, ack.seq + 1))
    assert driving.session.error is not None


@pytest.mark.parametrize("what", ["status", "boarding"])
def test_a_status_or_count_without_a_trip_is_refused(what: str) -> None:
    driving = Driving(trip_id="")
    if what == "status":
        driving.session.receive_status(1, TripStatus.STARTED, b"")
    else:
        driving.session.receive_boarding(1, b"")

    assert [r.reason for r in driving.acks()[0].rejected] == ["TRIP_REQUIRED"]


def test_a_status_after_ended_is_refused() -> None:
    driving = Driving(status="ENDED")
    driving.session.receive_status(1, TripStatus.PAUSED, b"")

    assert [r.reason for r in driving.acks()[0].rejected] == ["STATUS_NOT_ALLOWED"]


def test_a_heartbeat_is_said_after_a_silence_only() -> None:
    session = Driving().session
    session.beat()
    assert [type(reply) for reply in session.take_replies()] == [Heartbeat]
    session.beat()

    assert session.take_replies() == []


def test_the_newest_throttle_is_said_once() -> None:
    session = Driving().session
    session.throttle(Throttle(reason="DEPENDENCY_UNAVAILABLE", degraded=True))
    session.throttle(Throttle(reason="", degraded=False))

    assert session.take_replies() == [Throttle(reason="", degraded=False)]
    assert session.take_replies() == []


def test_the_drain_notice_is_said_once() -> None:
    session = Driving().session
    notice = Drain(reconnect_after_seconds=1.0, reason="SERVER_DRAINING")
    session.drain(notice)
    assert session.take_replies() == [notice]
    session.drain(notice)

    assert session.take_replies() == []


async def test_a_writer_wakes_when_something_must_be_said() -> None:
    session = Driving().session
    waiting = asyncio.create_task(session.wait_for_replies())
    await asyncio.sleep(0)
    assert not waiting.done()
    session.throttle(Throttle(reason="OVERLOADED", degraded=False))

    await asyncio.wait_for(waiting, 5)

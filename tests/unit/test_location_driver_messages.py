"""What a driver sends, over the wire server's own calls: taken as it comes, held back when full."""

import asyncio
import contextlib
from typing import Any

import pytest

from services.location.domain.positions import Fix, PositionGate, PositionRules, Refusal
from services.location.domain.trips import TripStatus
from services.location.driver_messages import DriverMessages
from services.location.operations.batcher import UpdateBatcher
from services.location.operations.driver_session import Ack, DriverSession
from services.location.settings import LocationSettings
from services.shared.clock import SystemClock
from services.shared.ids import Uuid7Source
from tests.support.location_fakes import MemoryLiveStore
from tests.support.location_values import a_position, a_publisher, new_id, now_milliseconds
from tests.support.waiting import until
from tests.support.wire_peer import WirePeer, message, stream
from wayfare.location.v1 import driver_stream_pb2

DriverMessage = driver_stream_pb2.DriverMessage
IN_FLIGHT_MAX = 4


class Drive:
    """Is a call over which a driver sends, and what becomes of it."""

    def __init__(self, gate: PositionGate | None) -> None:
        self.live = MemoryLiveStore()
        self._gate = gate or PositionGate(PositionRules(positions_per_minute=600))
        self.driver_id = new_id()
        self.batcher = UpdateBatcher(
            live=self.live, tick_seconds=0.002, pending_max=100, on_degraded=lambda _: None
        )
        self.opened = asyncio.Event()
        self.left = asyncio.Event()
        self.session: DriverSession
        self.messages: DriverMessages
        self.call: Any = None
        self.peer = WirePeer(stream(self._serve))
        self._began_at = now_milliseconds() - 600_000

    async def _serve(self, _requests: Any, context: Any) -> None:
        publisher = a_publisher(self.driver_id)
        grant = await self.live.open_session(
            driver_id=self.driver_id,
            tenant_id=publisher.tenant_id,
            vehicle_id=publisher.vehicle_id,
            trip_id="",
            resume_seq=None,
        )
        self.session = DriverSession(
            publisher=publisher,
            session=grant.session,
            trip_id="",
            trip_status=TripStatus(""),
            resume_seq=0,
            gate=self._gate,
            batcher=self.batcher,
            token_expire_time=None,
        )
        clock = SystemClock()
        self.call = context
        self.messages = DriverMessages(
            self.session,
            context,
            0,
            batcher=self.batcher,
            clock=clock,
            settings=LocationSettings(location_session_pending_max=IN_FLIGHT_MAX),
            ids=Uuid7Source(clock),
        )
        self.messages.begin()
        self.opened.set()
        await self.left.wait()
        await self.messages.close()

    def send(self, *seqs: int, end: bool = False) -> None:
        """Send positions in one frame, each a second after the one before."""
        sent = [
            DriverMessage(seq=seq, position=a_position(self._began_at + seq * 1000)) for seq in seqs
        ]
        self.peer.data(b"".join(message(one.SerializeToString()) for one in sent), end=end)

    def acknowledged(self) -> int:
        """Return up to which number is acknowledged."""
        self.session.acknowledge_if_due()
        acks = [one.seq for one in self.session.take_replies() if isinstance(one, Ack)]
        return max(acks, default=0)


@contextlib.asynccontextmanager
async def driving(gate: PositionGate | None = None) -> Any:
    """Open a call whose updates are written until the block ends."""
    drive = Drive(gate)
    writing = asyncio.create_task(drive.batcher.run())
    drive.peer.open()
    await drive.opened.wait()
    try:
        yield drive
    finally:
        drive.left.set()
        await drive.peer.sent()
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


async def test_positions_are_submitted_while_they_are_read() -> None:
    async with driving() as drive:
        drive.send(1, 2)

        # No turn of the loop has passed.
        assert drive.session.in_flight == 2
        await until(lambda: drive.acknowledged() == 2)


async def test_no_more_are_in_flight_than_may_and_the_rest_waits_in_the_call() -> None:
    async with driving() as drive:
        drive.live.away = True
        drive.send(*range(1, 11))
        drive.send(11, 12)
        await until(lambda: drive.session.in_flight == IN_FLIGHT_MAX)
        assert drive.call.held > 0

        drive.live.away = False
        await until(lambda: drive.acknowledged() == 12)
        assert drive.call.held == 0


async def test_the_end_comes_after_all_that_waited_was_decided() -> None:
    async with driving() as drive:
        drive.live.away = True
        drive.send(*range(1, 11), end=True)
        await until(lambda: drive.session.in_flight == IN_FLIGHT_MAX)
        assert not drive.messages.is_done

        drive.live.away = False
        await until(lambda: drive.messages.is_done)
        assert drive.messages.error is None
        assert drive.acknowledged() == 10


async def test_goodbye_ends_it_and_what_comes_after_is_not_taken() -> None:
    async with driving() as drive:
        drive.send(1)
        goodbye = DriverMessage(goodbye=driver_stream_pb2.DriverGoodbye()).SerializeToString()
        drive.peer.data(message(goodbye))
        drive.send(2)
        await until(lambda: drive.messages.is_done)

        assert drive.acknowledged() == 1
        assert len(drive.live.applied) == 1


async def test_a_broken_message_spoils_nothing() -> None:
    async with driving() as drive:
        drive.send(1)
        drive.peer.data(message(b"\xff\xff"))
        drive.send(2)

        await until(lambda: drive.acknowledged() == 2)
        assert drive.messages.error is None


class BrokenGate(PositionGate):
    """Fails, as code with a fault does."""

    def judge(self, fix: Fix, now_milliseconds: int) -> Refusal | None:
        raise ValueError("broken")


async def test_an_error_of_our_own_ends_the_stream_with_it() -> None:
    async with driving(BrokenGate(PositionRules())) as drive:
        drive.send(1)
        await until(lambda: drive.messages.is_done)

        assert isinstance(drive.messages.error, ValueError)


# On a loop of its own: what servers that other tests share do on theirs is none of ours.
@pytest.mark.asyncio(loop_scope="function")
async def test_a_call_that_is_closed_while_it_waits_for_room_leaves_nothing_behind() -> None:
    async with driving() as drive:
        drive.live.away = True
        drive.send(*range(1, 11))
        await until(lambda: drive.session.in_flight == IN_FLIGHT_MAX)

    assert asyncio.all_tasks() == {asyncio.current_task()}

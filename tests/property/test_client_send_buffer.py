"""Whatever acknowledgements, losses and reconnects do, nothing is lost or repeated."""

from collections import deque

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from wayfare.location.v1 import driver_stream_pb2, position_pb2
from wayfare_client.send_buffer import SendBuffer

CAPACITY = 6


class SendBufferMachine(RuleBasedStateMachine):
    """Plays a phone, a network that loses messages, and a server that decides in order."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = SendBuffer(CAPACITY)
        self.reports: set[int] = set()
        self.to_server: deque[int] = deque()
        self.to_phone: deque[driver_stream_pb2.DriverAck] = deque()
        # What the server decided, in order, and which of it it refused.
        self.decided: list[int] = []
        self.refused: set[int] = set()
        self.unacknowledged_refusals: list[int] = []

    @initialize()
    def connect(self) -> None:
        assert self.buffer.resume(0)

    @rule(is_report=st.booleans())
    def add(self, is_report: bool) -> None:
        if not self.buffer.has_room():
            return
        if is_report:
            message = driver_stream_pb2.DriverMessage(status=driver_stream_pb2.StatusReport())
        else:
            message = driver_stream_pb2.DriverMessage(position=position_pb2.Position())
        seq = self.buffer.add(message)
        if is_report:
            self.reports.add(seq)

    @rule(count=st.integers(1, 4))
    def write(self, count: int) -> None:
        for _ in range(count):
            message = self.buffer.take_unsent()
            if message is not None:
                self.to_server.append(message.seq)

    @precondition(lambda self: self.to_server)
    @rule(count=st.integers(1, 4), refuses=st.booleans())
    def decide(self, count: int, refuses: bool) -> None:
        for _ in range(min(count, len(self.to_server))):
            seq = self.to_server.popleft()
            # In order, and never a second time: the server would ignore it, but need not.
            assert not self.decided or seq > self.decided[-1]
            self.decided.append(seq)
            if refuses:
                self.refused.add(seq)
                self.unacknowledged_refusals.append(seq)

    @precondition(lambda self: self.decided)
    @rule()
    def acknowledge(self) -> None:
        rejected = [
            driver_stream_pb2.RejectedMessage(seq=seq, reason="POSITION_TOO_OLD")
            for seq in self.unacknowledged_refusals
        ]
        self.unacknowledged_refusals.clear()
        self.to_phone.append(driver_stream_pb2.DriverAck(seq=self.decided[-1], rejected=rejected))

    @precondition(lambda self: self.to_phone)
    @rule()
    def hear(self) -> None:
        ack = self.to_phone.popleft()
        self.buffer.acknowledge(ack.seq, ack.rejected)

    @rule()
    def reconnect(self) -> None:
        self.to_server.clear()
        self.to_phone.clear()
        self.unacknowledged_refusals.clear()
        resume_seq = max(self.buffer.decided_seq, self.decided[-1] if self.decided else 0)
        assert self.buffer.resume(resume_seq)

    @invariant()
    def every_message_is_counted_once(self) -> None:
        buffer = self.buffer
        assert buffer.last_seq == (
            buffer.accepted_count
            + buffer.rejected_counts.total()
            + buffer.thinned_count
            + len(buffer)
        )

    @invariant()
    def it_stays_within_its_bound(self) -> None:
        assert len(self.buffer) <= CAPACITY

    def teardown(self) -> None:
        self.reconnect()
        while (message := self.buffer.take_unsent()) is not None:
            self.to_server.append(message.seq)
        while self.to_server:
            self.decide(1, False)
        if self.decided:
            self.acknowledge()
            self.hear()

        assert len(self.buffer) == 0
        assert self.reports <= set(self.decided)
        assert self.buffer.last_seq - len(set(self.decided)) <= self.buffer.thinned_count


SendBufferMachine.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestSendBuffer = SendBufferMachine.TestCase

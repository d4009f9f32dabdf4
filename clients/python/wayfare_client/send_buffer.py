"""The messages of a driver that the server has not decided yet.

DriverSession fills it, its streams empty it.

Pure: knows no connection and no clock. What it promises: every message is acknowledged, refused,
thinned (positions only, counted) or still here; after a reconnect what is still here is sent again,
in order, and nothing else is.
"""

from collections import Counter, deque
from collections.abc import Iterable

from wayfare.location.v1 import driver_stream_pb2


class SendBuffer:
    """Numbers messages, keeps them until they are decided, and says which to send next."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        # By number, which is the order in which they are sent.
        self._messages: dict[int, driver_stream_pb2.DriverMessage] = {}
        self._unsent: deque[int] = deque()
        self.last_seq = 0
        self.decided_seq = 0
        # No server can have decided what was never written to any stream.
        self._highest_written = 0
        self.accepted_count = 0
        self.unheard_count = 0
        self.resent_count = 0
        self.thinned_count = 0
        self.rejected_counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def first_seq(self) -> int | None:
        """Return the number of the oldest undecided message, or None."""
        return next(iter(self._messages), None)

    @property
    def has_unsent(self) -> bool:
        """Say whether something waits to be written to the present stream."""
        return bool(self._unsent)

    def has_room(self) -> bool:
        """Say whether a message can be added.

        there is a place, or a position that can give up its own.
        """
        return len(self._messages) < self._capacity or self._oldest_position() is not None

    def add(self, message: driver_stream_pb2.DriverMessage) -> int:
        """Number a message and keep it. Ask `has_room` before.

        Raises:
            OverflowError: there is no room.
        """
        if len(self._messages) >= self._capacity:
            oldest = self._oldest_position()
            if oldest is None:
                raise OverflowError("the buffer is full of messages that may not be dropped")
            del self._messages[oldest]
            self.thinned_count += 1
        self.last_seq += 1
        message.seq = self.last_seq
        self._messages[self.last_seq] = message
        self._unsent.append(self.last_seq)
        return self.last_seq

    def take_unsent(self) -> driver_stream_pb2.DriverMessage | None:
        """Return the next message to write to the present stream, or None.

        each is returned once a stream.
        """
        while self._unsent:
            seq = self._unsent.popleft()
            message = self._messages.get(seq)
            # Absent when it was thinned, or decided through an older stream.
            if message is None:
                continue
            if seq <= self._highest_written:
                self.resent_count += 1
            self._highest_written = max(self._highest_written, seq)
            return message
        return None

    def acknowledge(
        self, seq: int, rejected: Iterable[driver_stream_pb2.RejectedMessage] = ()
    ) -> None:
        """Drop everything up to a number: it was accepted but for what was rejected."""
        for refusal in rejected:
            # 0 stands for bytes that the server could not read as a message. What is not here was
            # counted before.
            if self._messages.pop(refusal.seq, None) is not None or refusal.seq == 0:
                self.rejected_counts[refusal.reason] += 1
        self.accepted_count += self._drop_up_to(seq)

    def resume(self, resume_seq: int) -> bool:
        """Begin a new stream: drop what the server decided before, send the rest again.

        Returns False when the server's numbering is not this one: it names what was never sent.
        """
        if resume_seq > self._highest_written:
            return False
        dropped = self._drop_up_to(resume_seq)
        # Accepted or refused: the acknowledgement that said which was lost with its stream.
        self.accepted_count += dropped
        self.unheard_count += dropped
        self._unsent = deque(self._messages)
        return True

    def _drop_up_to(self, seq: int) -> int:
        seq = min(seq, self._highest_written)
        dropped = 0
        while (first := self.first_seq) is not None and first <= seq:
            del self._messages[first]
            dropped += 1
        self.decided_seq = max(self.decided_seq, seq)
        return dropped

    def _oldest_position(self) -> int | None:
        return next(
            (seq for seq, message in self._messages.items() if message.HasField("position")), None
        )

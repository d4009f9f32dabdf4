"""What became of every position of one run: sent, refused, delivered, lost, and how fast."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from wayfare.location.v1 import driver_stream_pb2, position_pb2, trip_update_pb2

CaptureKey = tuple[int, int]


@dataclass(slots=True, kw_only=True)
class RunRecord:
    """Counts one run. A position is known by its capture time, which no other of its trip has."""

    name: str
    protocol: str = ""
    driver_instance: str = ""
    follower_instance: str = ""
    undecided_count: int = 0
    follower_error: str = ""
    _sent: dict[CaptureKey, float] = field(default_factory=dict)
    _keys_by_seq: dict[int, CaptureKey] = field(default_factory=dict)
    _refused: dict[int, str] = field(default_factory=dict)
    _delivered: dict[CaptureKey, float] = field(default_factory=dict)

    def note_sent(self, position: position_pb2.Position, *, at: float) -> None:
        """Note that a position is about to be sent."""
        self._sent[_key(position)] = at

    def note_seq(self, position: position_pb2.Position, seq: int | None) -> None:
        """Note the number under which a position was sent."""
        if seq is not None:
            self._keys_by_seq[seq] = _key(position)

    def note_refused(self, message: driver_stream_pb2.RejectedMessage) -> None:
        """Note that the server refused a message."""
        self._refused[message.seq] = message.reason

    def note_update(self, update: trip_update_pb2.TripUpdate, *, at: float) -> None:
        """Note what a follower heard; the first time counts."""
        kind = update.WhichOneof("update")
        if kind == "position":
            self._delivered.setdefault(_key(update.position), at)
        elif kind == "snapshot" and update.snapshot.HasField("position"):
            self._delivered.setdefault(_key(update.snapshot.position), at)

    @property
    def sent_count(self) -> int:
        """Count the positions that were sent."""
        return len(self._sent)

    @property
    def delivered_count(self) -> int:
        """Count the positions that reached the follower."""
        return len(self._delivered.keys() & self._sent.keys())

    @property
    def refused_by_reason(self) -> Counter[str]:
        """Count the refused positions by reason."""
        return Counter(reason for seq, reason in self._refused.items() if seq in self._keys_by_seq)

    @property
    def lost_count(self) -> int:
        """Count the accepted positions that never came."""
        return max(0, len(self._missing()) - self.undecided_count)

    @property
    def latencies_seconds(self) -> list[float]:
        """Return the time from sending to delivery of every delivered position."""
        return [at - self._sent[key] for key, at in self._delivered.items() if key in self._sent]

    def _missing(self) -> set[CaptureKey]:
        refused = {self._keys_by_seq[seq] for seq in self._refused if seq in self._keys_by_seq}
        return self._sent.keys() - refused - self._delivered.keys()


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the nearest-rank percentile; None of nothing."""
    if not values:
        return None
    ranked = sorted(values)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]


def _key(position: position_pb2.Position) -> CaptureKey:
    return position.capture_time.seconds, position.capture_time.nanos

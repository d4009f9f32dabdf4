"""The driver's messages that wait for their acknowledgement."""

import pytest

from wayfare.location.v1 import driver_stream_pb2, position_pb2
from wayfare_client.send_buffer import SendBuffer


def position() -> driver_stream_pb2.DriverMessage:
    return driver_stream_pb2.DriverMessage(position=position_pb2.Position())


def status() -> driver_stream_pb2.DriverMessage:
    return driver_stream_pb2.DriverMessage(status=driver_stream_pb2.StatusReport())


def written(buffer: SendBuffer) -> list[int]:
    seqs = []
    while (message := buffer.take_unsent()) is not None:
        seqs.append(message.seq)
    return seqs


def test_a_full_buffer_gives_up_its_oldest_position_and_counts_it() -> None:
    buffer = SendBuffer(3)
    for message in (status(), position(), position(), position()):
        buffer.add(message)

    assert written(buffer) == [1, 3, 4]
    assert buffer.thinned_count == 1


def test_a_buffer_full_of_reports_has_no_room() -> None:
    buffer = SendBuffer(2)
    buffer.add(status())
    buffer.add(status())

    assert not buffer.has_room()
    with pytest.raises(OverflowError):
        buffer.add(position())


def test_what_the_server_decided_before_is_not_sent_again() -> None:
    buffer = SendBuffer(10)
    for _ in range(5):
        buffer.add(position())
    written(buffer)
    buffer.acknowledge(2)

    assert buffer.resume(3)
    assert written(buffer) == [4, 5]
    assert (buffer.accepted_count, buffer.unheard_count, buffer.resent_count) == (3, 1, 2)


def test_refusals_are_counted_by_reason() -> None:
    buffer = SendBuffer(10)
    for _ in range(3):
        buffer.add(position())
    written(buffer)
    buffer.acknowledge(3, [driver_stream_pb2.RejectedMessage(seq=2, reason="POSITION_IMPLAUSIBLE")])

    assert buffer.accepted_count == 2
    assert buffer.rejected_counts == {"POSITION_IMPLAUSIBLE": 1}


def test_an_acknowledgement_of_what_was_never_sent_drops_nothing() -> None:
    buffer = SendBuffer(10)
    buffer.add(position())
    buffer.acknowledge(1_000)

    assert written(buffer) == [1]


def test_the_numbering_of_another_phone_is_not_taken_for_ones_own() -> None:
    buffer = SendBuffer(10)
    buffer.add(position())

    assert not buffer.resume(57)
    assert len(buffer) == 1

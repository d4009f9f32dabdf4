"""Converts moments to the wire. Called by the services' convert.py."""

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp


def timestamp_of(moment: datetime | None) -> Timestamp | None:
    """Return `moment` as the wire has it; None stays None."""
    if moment is None:
        return None
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp

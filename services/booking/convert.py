"""Pure conversion that several parts of the service need: moments, durations, money, hashes."""

import hashlib
from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.type import money_pb2

from services.booking.ports.requests import WriteRequest
from services.booking.ports.trips import NewEvent
from services.shared.errors import FieldViolation, RequestInvalidError
from services.shared.money import Money, money_to_proto
from services.shared.rpc.caller import Caller
from services.shared.rpc.timestamps import timestamp_of
from wayfare.event.v1.envelope_pb2 import Envelope


def hash_of(request: Message) -> bytes:
    """Return 32 bytes that stand for a request's body: the same for the same fields."""
    return hashlib.sha256(request.SerializeToString(deterministic=True)).digest()


def write_request(caller: Caller, method: str, request: Message) -> WriteRequest:
    """Return who asks for a write, and the hash of what is asked; `request` has a request_id."""
    request_id: str = getattr(request, "request_id")  # noqa: B009 - every write has one
    return WriteRequest(
        tenant_id=caller.tenant_id,
        caller_id=caller.user_id or caller.name,
        method=method,
        request_id=request_id.lower(),
        body_hash=hash_of(request),
    )


def moment_of(timestamp: Timestamp, field: str) -> datetime:
    """Return the moment in UTC. Raises RequestInvalidError outside of the years 1 to 9999."""
    try:
        return timestamp.ToDatetime(UTC)
    except (ValueError, OverflowError):
        raise invalid(field, "is not a time between the years 1 and 9999") from None


def duration_message(duration: timedelta) -> Duration:
    """Return a duration as the contract has it."""
    message = Duration()
    message.FromTimedelta(duration)
    return message


def money_message(amount_minor: int, currency_code: str) -> money_pb2.Money:
    """Return an amount as the contract has it."""
    return money_to_proto(Money(currency_code=currency_code, amount_minor=amount_minor))


def invalid(field: str, description: str) -> RequestInvalidError:
    """Return the refusal of one field."""
    return RequestInvalidError(
        f"{field}: {description}", fields=[FieldViolation(field=field, description=description)]
    )


def new_event(
    payload: Message,
    *,
    event_id: str,
    tenant_id: str,
    aggregate_type: str,
    aggregate_id: str,
    aggregate_version: int,
    occur_time: datetime,
) -> NewEvent:
    """Return an event in its envelope, ready to be kept."""
    envelope = Envelope(
        event_id=event_id,
        tenant_id=tenant_id,
        aggregate_type=aggregate_type,
        aggregate_id=aggregate_id,
        aggregate_version=aggregate_version,
        occur_time=timestamp_of(occur_time),
    )
    envelope.payload.type_url = f"type.googleapis.com/{payload.DESCRIPTOR.full_name}"
    envelope.payload.value = payload.SerializeToString()
    return NewEvent(aggregate_type, aggregate_id, aggregate_version, envelope.SerializeToString())

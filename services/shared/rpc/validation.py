"""Reads and checks messages by the rules of the contract (protovalidate)."""

from typing import TypeVar

import protovalidate
from google.protobuf.message import DecodeError, Message

from services.shared.errors import DomainError, FieldViolation, Kind, RequestInvalidError

MessageType = TypeVar("MessageType", bound=Message)
_VIOLATIONS_MAX = 20
_validator = protovalidate.Validator()


class MessageMalformedError(DomainError):
    """Says that bytes are not a message of the method's type."""

    kind = Kind.INVALID
    reason = "MESSAGE_MALFORMED"


class MessageTooLargeError(DomainError):
    """Says that a message is larger than the server reads."""

    kind = Kind.EXHAUSTED
    reason = "MESSAGE_TOO_LARGE"

    def __init__(self, size_bytes: int, max_bytes: int) -> None:
        """Say both sizes."""
        super().__init__(
            f"the message has {size_bytes} bytes, at most {max_bytes} are read",
            metadata={"size_bytes": str(size_bytes), "max_bytes": str(max_bytes)},
        )


def read_message(data: bytes, message_class: type[MessageType], *, max_bytes: int) -> MessageType:
    """Return `data` as a message that keeps the contract's rules; unknown fields are ignored.

    Raises MessageTooLargeError, MessageMalformedError or RequestInvalidError.
    """
    message = parse_message(data, message_class, max_bytes=max_bytes)
    check_message(message)
    return message


def parse_message(data: bytes, message_class: type[MessageType], *, max_bytes: int) -> MessageType:
    """Return `data` as a message, unchecked. Raises MessageTooLargeError, MessageMalformedError."""
    if len(data) > max_bytes:
        raise MessageTooLargeError(len(data), max_bytes)
    try:
        return message_class.FromString(data)
    except DecodeError:
        raise MessageMalformedError(
            f"the bytes are not a {message_class.DESCRIPTOR.full_name}"
        ) from None


def check_message(message: Message) -> None:
    """Check `message` by the contract. Raises RequestInvalidError with a violation per field."""
    try:
        _validator.validate(message)
    except protovalidate.ValidationError as error:
        violations = [_violation_of(violation) for violation in error.violations[:_VIOLATIONS_MAX]]
        first = violations[0]
        raise RequestInvalidError(
            f"{first.field}: {first.description}", fields=violations
        ) from None


def _violation_of(violation: protovalidate.Violation) -> FieldViolation:
    parts: list[str] = []
    for element in violation.proto.field.elements if violation.proto.field is not None else ():
        name = str(element.field_name)
        subscript = element.subscript
        if subscript is not None:
            name += f"[{subscript.value}]"
        parts.append(name)
    return FieldViolation(
        field=".".join(parts),
        description=violation.proto.message,
        rule=violation.proto.rule_id,
    )

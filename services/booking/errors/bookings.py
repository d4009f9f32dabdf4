"""Refusals of bookings."""

from collections.abc import Iterable
from typing import ClassVar

from services.shared.errors import DomainError, Kind


class PassengersMismatchError(DomainError):
    """The passengers are not one for each seat of the hold."""

    kind: ClassVar[Kind] = Kind.INVALID
    reason: ClassVar[str] = "PASSENGERS_MISMATCH"

    def __init__(self, hold_id: str, seat_numbers: Iterable[str]) -> None:
        """Name the hold and its seats."""
        super().__init__(
            "There must be one passenger for each seat of the hold.",
            metadata={"hold_id": hold_id, "seat_numbers": ",".join(seat_numbers)},
        )


class PaymentMethodNotAllowedError(DomainError):
    """The trip cannot be paid like this, or the gateway is not one of the operator's."""

    kind: ClassVar[Kind] = Kind.PRECONDITION
    reason: ClassVar[str] = "PAYMENT_METHOD_NOT_ALLOWED"

    def __init__(self, trip_id: str, *, payment_method: str) -> None:
        """Name the trip and the method."""
        super().__init__(
            "This trip cannot be paid like this.",
            metadata={"trip_id": trip_id, "payment_method": payment_method},
        )


class PaymentFailedError(DomainError):
    """The ledger or the gateway refused the payment; the seats are free again."""

    kind: ClassVar[Kind] = Kind.PRECONDITION
    reason: ClassVar[str] = "PAYMENT_FAILED"

    def __init__(self, booking_id: str, *, ledger_reason: str) -> None:
        """Name the booking, and say why."""
        super().__init__(
            "The payment was refused; the seats are free again.",
            metadata={"booking_id": booking_id, "ledger_reason": ledger_reason},
        )


class BookingNotYoursError(DomainError):
    """The booking is another user's, or there is none."""

    kind: ClassVar[Kind] = Kind.PERMISSION
    reason: ClassVar[str] = "BOOKING_NOT_YOURS"

    def __init__(self, booking_id: str) -> None:
        """Name the booking."""
        super().__init__("This booking is not yours.", metadata={"booking_id": booking_id})


class BookingNotCancellableError(DomainError):
    """The booking keeps no seats any more, was used, or its journey has begun."""

    kind: ClassVar[Kind] = Kind.PRECONDITION
    reason: ClassVar[str] = "BOOKING_NOT_CANCELLABLE"

    def __init__(self, booking_id: str, *, state: str) -> None:
        """Name the booking and its state."""
        super().__init__(
            "This booking cannot be cancelled any more.",
            metadata={"booking_id": booking_id, "state": state},
        )


class CancellationFeeChangedError(DomainError):
    """Cancelling costs more than the caller agreed to."""

    kind: ClassVar[Kind] = Kind.PRECONDITION
    reason: ClassVar[str] = "CANCELLATION_FEE_CHANGED"

    def __init__(self, *, fee_minor: int, max_fee_minor: int, currency_code: str) -> None:
        """Say what it costs and what was agreed to, in minor units."""
        super().__init__(
            "Cancelling costs more by now; look at the fee again.",
            metadata={
                "fee_minor": str(fee_minor),
                "max_fee_minor": str(max_fee_minor),
                "currency_code": currency_code,
            },
        )


class RoleNotAllowedError(DomainError):
    """Another's bookings are asked for by somebody who may not see them."""

    kind: ClassVar[Kind] = Kind.PERMISSION
    reason: ClassVar[str] = "ROLE_NOT_ALLOWED"

    def __init__(self, role: str) -> None:
        """Name the caller's role."""
        super().__init__(
            "Bookings of others are for the operator's staff.", metadata={"role": role}
        )

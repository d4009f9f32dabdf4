"""Refusals of withdrawals and of the daily report, one class per reason of error_reason.proto."""

from typing import ClassVar

from services.shared.errors import DomainError, FieldViolation, Kind


class WithdrawalUnknownError(DomainError):
    """The tenant has no such withdrawal."""

    kind: ClassVar[Kind] = Kind.NOT_FOUND
    reason: ClassVar[str] = "WITHDRAWAL_UNKNOWN"

    def __init__(self, withdrawal_id: str) -> None:
        """Name the withdrawal."""
        super().__init__("There is no such withdrawal.", metadata={"withdrawal_id": withdrawal_id})


class WithdrawalAlreadyDecidedError(DomainError):
    """The withdrawal was decided otherwise before."""

    kind: ClassVar[Kind] = Kind.PRECONDITION
    reason: ClassVar[str] = "WITHDRAWAL_ALREADY_DECIDED"

    def __init__(self, withdrawal_id: str, *, state: str) -> None:
        """Name the withdrawal and what became of it."""
        super().__init__(
            "The withdrawal was decided otherwise before.",
            metadata={"withdrawal_id": withdrawal_id, "state": state},
        )


class OwnWithdrawalError(DomainError):
    """Nobody approves their own withdrawal."""

    kind: ClassVar[Kind] = Kind.PERMISSION
    reason: ClassVar[str] = "ROLE_NOT_ALLOWED"

    def __init__(self, withdrawal_id: str, *, role: str) -> None:
        """Name the withdrawal."""
        super().__init__(
            "Nobody approves their own withdrawal. Ask another ADMIN.",
            metadata={
                "withdrawal_id": withdrawal_id,
                "role": role,
                "allowed_roles": "ADMIN",
            },
        )


class WithdrawalTooSmallError(DomainError):
    """Less is asked for than is paid out."""

    kind: ClassVar[Kind] = Kind.INVALID
    reason: ClassVar[str] = "AMOUNT_INVALID"

    def __init__(self, amount_minor: int, *, minimum_minor: int) -> None:
        """Say both."""
        message = f"The least that is paid out is {minimum_minor} minor units."
        super().__init__(
            message,
            metadata={"amount_minor": str(amount_minor), "minimum_minor": str(minimum_minor)},
            fields=[FieldViolation(field="amount", description=message)],
        )


class DateInvalidError(DomainError):
    """The date is none, or in the future."""

    kind: ClassVar[Kind] = Kind.INVALID
    reason: ClassVar[str] = "DATE_INVALID"

    def __init__(self, year: int, month: int, day: int) -> None:
        """Say the date."""
        message = "The date is none, or in the future (UTC)."
        super().__init__(
            message,
            metadata={"date": f"{year:04}-{month:02}-{day:02}"},
            fields=[FieldViolation(field="date", description=message)],
        )

"""Every refusal of LedgerService, one class per reason of error_reason.proto.

Raised where decided, or returned as what became of one transfer of many.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import ClassVar

from services.shared.errors import DomainError, FieldViolation, Kind


class FundsInsufficientError(DomainError):
    """A wallet would fall below its limit."""

    kind: ClassVar[Kind] = Kind.PRECONDITION
    reason: ClassVar[str] = "FUNDS_INSUFFICIENT"

    def __init__(
        self, subject: str, *, currency_code: str, available_minor: int, required_minor: int
    ) -> None:
        """Name the wallet's owner, what there is and what is needed."""
        self.available_minor = available_minor
        super().__init__(
            "The wallet does not have this much.",
            metadata={
                "subject": subject,
                "currency_code": currency_code,
                "available_minor": str(available_minor),
                "required_minor": str(required_minor),
            },
        )


class TransferExistsDifferentlyError(DomainError):
    """A transfer with this id was made with other content."""

    kind: ClassVar[Kind] = Kind.EXISTS
    reason: ClassVar[str] = "TRANSFER_EXISTS_DIFFERENTLY"

    def __init__(self, transfer_id: str) -> None:
        """Name the transfer."""
        super().__init__(
            "This transfer_id was used before with other content.",
            metadata={"transfer_id": transfer_id},
        )


class PendingAlreadyResolvedError(DomainError):
    """A pending transfer was resolved before."""

    kind: ClassVar[Kind] = Kind.PRECONDITION
    reason: ClassVar[str] = "PENDING_ALREADY_RESOLVED"

    def __init__(self, transfer_id: str, *, phase: str) -> None:
        """Name the pending transfer and what became of it."""
        super().__init__(
            "The pending transfer was resolved before.",
            metadata={"transfer_id": transfer_id, "phase": phase},
        )


class PendingExpiredError(DomainError):
    """The time of a pending transfer is over."""

    kind: ClassVar[Kind] = Kind.PRECONDITION
    reason: ClassVar[str] = "PENDING_EXPIRED"

    def __init__(self, transfer_id: str, *, expire_time: datetime) -> None:
        """Name the pending transfer and the end of its time."""
        super().__init__(
            "The time of the pending transfer is over.",
            metadata={"transfer_id": transfer_id, "expire_time": expire_time.isoformat()},
        )


class CurrencyMismatchError(DomainError):
    """Amounts that belong together have several currencies."""

    kind: ClassVar[Kind] = Kind.INVALID
    reason: ClassVar[str] = "CURRENCY_MISMATCH"

    def __init__(self, currency_codes: Iterable[str]) -> None:
        """Name the currencies."""
        codes = ",".join(sorted(set(currency_codes)))
        super().__init__(
            f"Amounts of one transfer have several currencies: {codes}.",
            metadata={"currency_codes": codes},
        )


class PostingsUnbalancedError(DomainError):
    """Debits and credits differ."""

    kind: ClassVar[Kind] = Kind.INVALID
    reason: ClassVar[str] = "POSTINGS_UNBALANCED"

    def __init__(self, *, debit_minor: int, credit_minor: int) -> None:
        """Say both sums."""
        super().__init__(
            f"Debits of {debit_minor} and credits of {credit_minor} do not balance.",
            metadata={"debit_minor": str(debit_minor), "credit_minor": str(credit_minor)},
        )


class AmountInvalidError(DomainError):
    """An amount is not positive, or too large."""

    kind: ClassVar[Kind] = Kind.INVALID
    reason: ClassVar[str] = "AMOUNT_INVALID"

    def __init__(self, amount_minor: int, *, field: str = "amount") -> None:
        """Say the amount."""
        message = f"The amount {amount_minor} is not between 1 and 10^15 minor units."
        super().__init__(
            message,
            metadata={"amount_minor": str(amount_minor)},
            fields=[FieldViolation(field=field, description=message)],
        )


class AccountUnknownError(DomainError):
    """The tenant has no such account."""

    kind: ClassVar[Kind] = Kind.NOT_FOUND
    reason: ClassVar[str] = "ACCOUNT_UNKNOWN"

    def __init__(self, account_id: str) -> None:
        """Name the account."""
        super().__init__("There is no such account.", metadata={"account_id": account_id})


class AccountBlockedError(DomainError):
    """Nothing may be taken from the account."""

    kind: ClassVar[Kind] = Kind.PRECONDITION
    reason: ClassVar[str] = "ACCOUNT_BLOCKED"

    def __init__(self, subject: str) -> None:
        """Name the wallet's owner."""
        super().__init__("The wallet is blocked. Ask the operator.", metadata={"subject": subject})


class LinkedTransferFailedError(DomainError):
    """Another transfer of the chain was refused."""

    kind: ClassVar[Kind] = Kind.ABORTED
    reason: ClassVar[str] = "LINKED_TRANSFER_FAILED"

    def __init__(self, failed_transfer_id: str) -> None:
        """Name the transfer that was refused for a reason of its own."""
        super().__init__(
            "Another transfer that this one is linked to was refused.",
            metadata={"failed_transfer_id": failed_transfer_id},
        )


class TransferUnknownError(DomainError):
    """The tenant has no such transfer."""

    kind: ClassVar[Kind] = Kind.NOT_FOUND
    reason: ClassVar[str] = "TRANSFER_UNKNOWN"

    def __init__(self, transfer_id: str) -> None:
        """Name the transfer."""
        super().__init__("There is no such transfer.", metadata={"transfer_id": transfer_id})


class TransferNotPendingError(DomainError):
    """The transfer is not a pending one."""

    kind: ClassVar[Kind] = Kind.PRECONDITION
    reason: ClassVar[str] = "TRANSFER_NOT_PENDING"

    def __init__(self, transfer_id: str, *, phase: str) -> None:
        """Name the transfer and what it is."""
        super().__init__(
            "The transfer is not a pending one.",
            metadata={"transfer_id": transfer_id, "phase": phase},
        )


class AmountExceedsPendingError(DomainError):
    """More would be posted than was pending."""

    kind: ClassVar[Kind] = Kind.PRECONDITION
    reason: ClassVar[str] = "AMOUNT_EXCEEDS_PENDING"

    def __init__(self, transfer_id: str) -> None:
        """Name the pending transfer."""
        super().__init__(
            "More would be posted than was pending for one of the accounts.",
            metadata={"transfer_id": transfer_id},
        )


class TransferNotRefundableError(DomainError):
    """The transfer moved no money that could be given back."""

    kind: ClassVar[Kind] = Kind.PRECONDITION
    reason: ClassVar[str] = "TRANSFER_NOT_REFUNDABLE"

    def __init__(self, transfer_id: str, *, phase: str, transfer_kind: str) -> None:
        """Name the transfer and what it is."""
        super().__init__(
            "The transfer moved no money that could be given back.",
            metadata={"transfer_id": transfer_id, "phase": phase, "kind": transfer_kind},
        )


class RefundExceedsPaymentError(DomainError):
    """All refunds together would be more than was paid."""

    kind: ClassVar[Kind] = Kind.PRECONDITION
    reason: ClassVar[str] = "REFUND_EXCEEDS_PAYMENT"

    def __init__(
        self, transfer_id: str, *, paid_minor: int, refunded_minor: int, requested_minor: int
    ) -> None:
        """Name the payment and the amounts."""
        super().__init__(
            "All refunds together would be more than was paid.",
            metadata={
                "transfer_id": transfer_id,
                "paid_minor": str(paid_minor),
                "refunded_minor": str(refunded_minor),
                "requested_minor": str(requested_minor),
            },
        )


class TripAlreadySettledError(DomainError):
    """The trip was settled for this passenger with other amounts."""

    kind: ClassVar[Kind] = Kind.EXISTS
    reason: ClassVar[str] = "TRIP_ALREADY_SETTLED"

    def __init__(self, trip_id: str, *, transfer_id: str) -> None:
        """Name the trip and its settlement."""
        super().__init__(
            "The trip was settled for this passenger before with other amounts.",
            metadata={"trip_id": trip_id, "transfer_id": transfer_id},
        )


class LimitAboveBalanceError(DomainError):
    """The new limit is above what the wallet holds."""

    kind: ClassVar[Kind] = Kind.PRECONDITION
    reason: ClassVar[str] = "LIMIT_ABOVE_BALANCE"

    def __init__(self, *, balance_minor: int, limit_minor: int) -> None:
        """Say both."""
        super().__init__(
            "The limit is above what the wallet holds. Block the wallet instead.",
            metadata={"balance_minor": str(balance_minor), "limit_minor": str(limit_minor)},
        )


class NotAWalletError(DomainError):
    """Only wallets have limits and can be blocked."""

    kind: ClassVar[Kind] = Kind.PRECONDITION
    reason: ClassVar[str] = "NOT_A_WALLET"

    def __init__(self, account_kind: str) -> None:
        """Say what it is."""
        super().__init__(
            "Only wallets have a limit and can be blocked.", metadata={"kind": account_kind}
        )


class RoleNotAllowedError(DomainError):
    """The caller may not see another's account."""

    kind: ClassVar[Kind] = Kind.PERMISSION
    reason: ClassVar[str] = "ROLE_NOT_ALLOWED"

    def __init__(self, role: str) -> None:
        """Name the role."""
        super().__init__(
            f"{role} may see only their own wallet.",
            metadata={"role": role, "allowed_roles": "ADMIN,BUSINESS"},
        )


class PageTokenInvalidError(DomainError):
    """The page token is not of this list."""

    kind: ClassVar[Kind] = Kind.INVALID
    reason: ClassVar[str] = "PAGE_TOKEN_INVALID"

    def __init__(self) -> None:
        """Say so."""
        message = "The page_token is not of this list with these filters."
        super().__init__(message, fields=[FieldViolation(field="page_token", description=message)])

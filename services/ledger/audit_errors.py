"""Refusals of audits, one class per reason of error_reason.proto."""

from typing import ClassVar

from services.shared.errors import DomainError, Kind


class ReconciliationUnknownError(DomainError):
    """The tenant has no such report."""

    kind: ClassVar[Kind] = Kind.NOT_FOUND
    reason: ClassVar[str] = "RECONCILIATION_UNKNOWN"

    def __init__(self, reconciliation_id: str) -> None:
        """Name the report, or say "latest"."""
        super().__init__(
            "There is no such report.", metadata={"reconciliation_id": reconciliation_id}
        )


class ReceiptNotReadyError(DomainError):
    """The transfer is not sealed yet."""

    kind: ClassVar[Kind] = Kind.PRECONDITION
    reason: ClassVar[str] = "RECEIPT_NOT_READY"

    def __init__(self, transfer_id: str) -> None:
        """Name the transfer."""
        super().__init__(
            "The transfer is not sealed yet. Ask again in a few seconds.",
            metadata={"transfer_id": transfer_id},
        )

"""The refusals of deposits and payment webhooks, one class per reason of error_reason.proto."""

from typing import ClassVar

from services.shared.errors import DomainError, FieldViolation, Kind


class GatewayNotConfiguredError(DomainError):
    """The tenant has no account at the payment gateway."""

    kind: ClassVar[Kind] = Kind.PRECONDITION
    reason: ClassVar[str] = "GATEWAY_NOT_CONFIGURED"

    def __init__(self, gateway: str) -> None:
        """Name the gateway."""
        super().__init__(
            f"The operator has no account at {gateway}.", metadata={"gateway": gateway}
        )


class DepositUnknownError(DomainError):
    """There is no such deposit that the caller may see."""

    kind: ClassVar[Kind] = Kind.NOT_FOUND
    reason: ClassVar[str] = "DEPOSIT_UNKNOWN"

    def __init__(self, deposit_id: str) -> None:
        """Name the deposit."""
        super().__init__("There is no such deposit.", metadata={"deposit_id": deposit_id})


class SignatureInvalidError(DomainError):
    """A notification is not signed by the gateway, or not all of it that counts."""

    kind: ClassVar[Kind] = Kind.PERMISSION
    reason: ClassVar[str] = "SIGNATURE_INVALID"

    def __init__(self, gateway: str) -> None:
        """Name the gateway; nothing is said of what a right signature would be."""
        super().__init__(
            "The signature is missing or wrong, or does not cover order, amount, currency and"
            " status.",
            metadata={"gateway": gateway},
        )


class WebhookMalformedError(DomainError):
    """A notification cannot be read."""

    kind: ClassVar[Kind] = Kind.INVALID
    reason: ClassVar[str] = "WEBHOOK_MALFORMED"

    def __init__(self, gateway: str, what: str) -> None:
        """Name the gateway, and say what is wrong without quoting the body."""
        super().__init__(f"The notification cannot be read: {what}.", metadata={"gateway": gateway})


class AmountMismatchError(DomainError):
    """Another amount was paid than the deposit asks for."""

    kind: ClassVar[Kind] = Kind.PRECONDITION
    reason: ClassVar[str] = "AMOUNT_MISMATCH"

    def __init__(self, deposit_id: str, *, expected_minor: int, received_minor: int) -> None:
        """Name the deposit and both amounts."""
        super().__init__(
            "Another amount was paid than the deposit asks for.",
            metadata={
                "deposit_id": deposit_id,
                "expected_minor": str(expected_minor),
                "received_minor": str(received_minor),
            },
        )


class DepositCurrencyError(DomainError):
    """A deposit's currency is not that of the gateway, or of what was paid."""

    kind: ClassVar[Kind] = Kind.INVALID
    reason: ClassVar[str] = "CURRENCY_MISMATCH"

    def __init__(self, gateway: str, *, expected: str, received: str) -> None:
        """Name the gateway and both currencies."""
        super().__init__(
            f"{gateway} takes {expected} for this, not {received}.",
            metadata={"currency_codes": ",".join(sorted({expected, received}))},
        )


class DepositAmountError(DomainError):
    """A deposit is below the least or above the most that the tenant takes."""

    kind: ClassVar[Kind] = Kind.INVALID
    reason: ClassVar[str] = "AMOUNT_INVALID"

    def __init__(self, amount_minor: int, *, minimum_minor: int, maximum_minor: int) -> None:
        """Say the amount and the bounds, in minor units."""
        message = (
            f"A deposit of {amount_minor} is not between {minimum_minor} and {maximum_minor}"
            " minor units."
        )
        super().__init__(
            message,
            metadata={
                "amount_minor": str(amount_minor),
                "minimum_minor": str(minimum_minor),
                "maximum_minor": str(maximum_minor),
            },
            fields=[FieldViolation(field="amount", description=message)],
        )

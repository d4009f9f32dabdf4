"""Refusals of every list."""

from typing import ClassVar

from services.shared.errors import DomainError, FieldViolation, Kind


class PageTokenInvalidError(DomainError):
    """The page token is not of this list."""

    kind: ClassVar[Kind] = Kind.INVALID
    reason: ClassVar[str] = "PAGE_TOKEN_INVALID"

    def __init__(self, field: str = "page_token") -> None:
        """Name the field: page_token or sync_token."""
        message = f"The {field} is not of this list with these filters."
        super().__init__(message, fields=[FieldViolation(field=field, description=message)])

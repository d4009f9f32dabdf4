"""Every refusal of IdentityService, one class per reason of error_reason.proto.

Raised where decided, by domain.py and the operations; services/shared maps kind and reason to a
status, once.
"""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar

from services.shared.errors import DomainError, FieldViolation, Kind


class PhoneTakenError(DomainError):
    """The phone has an account with this tenant."""

    kind: ClassVar[Kind] = Kind.EXISTS
    reason: ClassVar[str] = "PHONE_TAKEN"

    def __init__(self) -> None:
        """Say so, without the phone."""
        super().__init__("The phone has an account already. Log in instead.")


class PhoneInvalidError(DomainError):
    """The number cannot exist."""

    kind: ClassVar[Kind] = Kind.INVALID
    reason: ClassVar[str] = "PHONE_INVALID"

    def __init__(self) -> None:
        """Say so, without the phone."""
        message = "The phone number does not exist in its country's numbering plan."
        super().__init__(message, fields=[FieldViolation(field="phone", description=message)])


class TenantUnknownError(DomainError):
    """There is no such operator."""

    kind: ClassVar[Kind] = Kind.NOT_FOUND
    reason: ClassVar[str] = "TENANT_UNKNOWN"

    def __init__(self, tenant_id: str) -> None:
        """Name the tenant that was asked for."""
        super().__init__(
            "There is no operator with this tenant_id.", metadata={"tenant_id": tenant_id}
        )


class CredentialsWrongError(DomainError):
    """The phone is unknown or the password wrong."""

    kind: ClassVar[Kind] = Kind.UNAUTHENTICATED
    reason: ClassVar[str] = "CREDENTIALS_WRONG"

    def __init__(self) -> None:
        """Say so, without saying which."""
        super().__init__("The phone or the password is wrong.")


class TooManyAttemptsError(DomainError):
    """Too many wrong passwords were tried for the phone."""

    kind: ClassVar[Kind] = Kind.EXHAUSTED
    reason: ClassVar[str] = "TOO_MANY_ATTEMPTS"

    def __init__(
        self, *, attempts_max: int, window_seconds: int, retry_after_seconds: float
    ) -> None:
        """Name the limit and when it ends."""
        minutes = math.ceil(retry_after_seconds / 60)
        super().__init__(
            f"More than {attempts_max} wrong passwords were tried. Try again in {minutes} minutes.",
            metadata={
                "max_attempts": str(attempts_max),
                "window_seconds": str(window_seconds),
                "retry_after_minutes": str(minutes),
            },
            retry_after_seconds=retry_after_seconds,
        )


class SessionRevokedError(DomainError):
    """The session was ended before its time."""

    kind: ClassVar[Kind] = Kind.UNAUTHENTICATED
    reason: ClassVar[str] = "SESSION_REVOKED"

    def __init__(self, cause: str) -> None:
        """Name the cause: LOGGED_OUT, SUSPENDED or TOKEN_REUSED."""
        super().__init__("The session has ended. Log in again.", metadata={"cause": cause})


class TokenInvalidError(DomainError):
    """The refresh token is not one of ours."""

    kind: ClassVar[Kind] = Kind.UNAUTHENTICATED
    reason: ClassVar[str] = "TOKEN_INVALID"

    def __init__(self) -> None:
        """Say so."""
        super().__init__("The refresh token is not valid. Log in again.")


class TokenExpiredError(DomainError):
    """The refresh token was valid once."""

    kind: ClassVar[Kind] = Kind.UNAUTHENTICATED
    reason: ClassVar[str] = "TOKEN_EXPIRED"

    def __init__(self, expire_time: datetime) -> None:
        """Name the moment at which it expired."""
        super().__init__(
            "The refresh token has expired. Log in again.",
            metadata={"expire_time": expire_time.isoformat()},
        )


class AccountSuspendedError(DomainError):
    """An ADMIN suspended the account."""

    kind: ClassVar[Kind] = Kind.PERMISSION
    reason: ClassVar[str] = "ACCOUNT_SUSPENDED"

    def __init__(self) -> None:
        """Say so."""
        super().__init__("The account is suspended. Ask the operator.")


class RoleNotAllowedError(DomainError):
    """The role cannot be chosen at sign-up."""

    kind: ClassVar[Kind] = Kind.PERMISSION
    reason: ClassVar[str] = "ROLE_NOT_ALLOWED"

    def __init__(self, role: str, *, allowed_roles: Sequence[str]) -> None:
        """Name the role and those that can be chosen."""
        super().__init__(
            f"Nobody can sign up as {role}.",
            metadata={"role": role, "allowed_roles": ",".join(allowed_roles)},
        )


class UserUnknownError(DomainError):
    """The tenant has no such account."""

    kind: ClassVar[Kind] = Kind.NOT_FOUND
    reason: ClassVar[str] = "USER_UNKNOWN"

    def __init__(self, user_id: str) -> None:
        """Name the account that was asked for."""
        super().__init__("There is no account with this user_id.", metadata={"user_id": user_id})


class NotADriverError(DomainError):
    """Only drivers can be approved."""

    kind: ClassVar[Kind] = Kind.PRECONDITION
    reason: ClassVar[str] = "NOT_A_DRIVER"

    def __init__(self, role: str) -> None:
        """Name the role that the account has."""
        super().__init__(f"The account's role is {role}, not DRIVER.", metadata={"role": role})


class StatusChangeNotAllowedError(DomainError):
    """The status cannot become that from what it is."""

    kind: ClassVar[Kind] = Kind.PRECONDITION
    reason: ClassVar[str] = "STATUS_CHANGE_NOT_ALLOWED"

    def __init__(self, *, from_status: str, to_status: str) -> None:
        """Name both."""
        super().__init__(
            f"The status cannot be changed from {from_status} to {to_status}.",
            metadata={"from": from_status, "to": to_status},
        )


class LastAdminError(DomainError):
    """The tenant would have nobody left to administer it."""

    kind: ClassVar[Kind] = Kind.PRECONDITION
    reason: ClassVar[str] = "LAST_ADMIN"

    def __init__(self) -> None:
        """Say so."""
        super().__init__("This is the only active ADMIN. Make another one first.")


class ApiKeyUnknownError(DomainError):
    """The tenant has no such key."""

    kind: ClassVar[Kind] = Kind.NOT_FOUND
    reason: ClassVar[str] = "API_KEY_UNKNOWN"

    def __init__(self, key_id: str) -> None:
        """Name the key that was asked for."""
        super().__init__("There is no API key with this key_id.", metadata={"key_id": key_id})


class ApiKeyInvalidError(DomainError):
    """The key is unknown, revoked, expired or wrong."""

    kind: ClassVar[Kind] = Kind.UNAUTHENTICATED
    reason: ClassVar[str] = "API_KEY_INVALID"

    def __init__(self) -> None:
        """Say so, without saying which."""
        super().__init__("The API key is not valid.")


class TooManyApiKeysError(DomainError):
    """The tenant has as many working keys as it may have."""

    kind: ClassVar[Kind] = Kind.EXHAUSTED
    reason: ClassVar[str] = "TOO_MANY_API_KEYS"

    def __init__(self, api_keys_max: int) -> None:
        """Name the limit."""
        super().__init__(
            f"There are {api_keys_max} working API keys already. Revoke one that is not used.",
            metadata={"max_api_keys": str(api_keys_max)},
        )


class PageTokenInvalidError(DomainError):
    """The page token is not one of this list."""

    kind: ClassVar[Kind] = Kind.INVALID
    reason: ClassVar[str] = "PAGE_TOKEN_INVALID"

    def __init__(self) -> None:
        """Say so."""
        message = "The page_token does not belong to this list with these filters."
        super().__init__(message, fields=[FieldViolation(field="page_token", description=message)])


class ExpireTimePassedError(DomainError):
    """The key would have expired before it was made."""

    kind: ClassVar[Kind] = Kind.INVALID
    reason: ClassVar[str] = "EXPIRE_TIME_PASSED"

    def __init__(self) -> None:
        """Say so."""
        message = "The expire_time is not in the future."
        super().__init__(message, fields=[FieldViolation(field="expire_time", description=message)])

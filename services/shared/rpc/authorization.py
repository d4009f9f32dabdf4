"""Decides by the contract's policy whether a caller may call a method. Pure; denies by default."""

from services.shared.errors import DomainError, Kind
from services.shared.rpc.authentication import CredentialsMissingError
from services.shared.rpc.caller import Caller, CallerKind
from services.shared.rpc.policy import MethodRule


class RoleNotAllowedError(DomainError):
    """Says that the caller's role may not call the method."""

    kind = Kind.PERMISSION
    reason = "ROLE_NOT_ALLOWED"


class AccountPendingError(DomainError):
    """Says that the account waits for approval."""

    kind = Kind.PERMISSION
    reason = "ACCOUNT_PENDING"


class ServiceNotAllowedError(DomainError):
    """Says that the method is for other services, and the caller is none of those on its list."""

    kind = Kind.PERMISSION
    reason = "SERVICE_NOT_ALLOWED"


def authorize(caller: Caller, rule: MethodRule) -> None:
    """Let `caller` pass, or raise the error that says why not."""
    if rule.public:
        return
    if caller.kind is CallerKind.SERVICE:
        if caller.service not in rule.internal_services:
            raise ServiceNotAllowedError(
                "this service may not call this method", metadata={"service": caller.service}
            )
        return
    if rule.internal_only:
        raise ServiceNotAllowedError("this method is for services only")
    if caller.kind is CallerKind.ANONYMOUS:
        raise CredentialsMissingError(
            "this method needs an access token: `authorization: Bearer …`"
        )
    _authorize_person(caller, rule)


def _authorize_person(caller: Caller, rule: MethodRule) -> None:
    by_key = caller.kind is CallerKind.API_KEY
    if caller.role not in rule.roles or (by_key and not rule.allow_api_key):
        raise RoleNotAllowedError(
            "an API key may not call this method"
            if by_key
            else f"{caller.role} may not call this method",
            metadata={"role": caller.role, "allowed_roles": ",".join(sorted(rule.roles))},
        )
    if caller.pending and not rule.allow_pending:
        raise AccountPendingError("the account waits for approval by an administrator")

"""For whom a call is made: what every area of the RPC side asks of its caller."""

from services.ledger.errors import RoleNotAllowedError
from services.ledger.ports import Reader
from services.shared.errors import FieldViolation, RequestInvalidError
from services.shared.rpc.caller import Caller, CallerKind

_STAFF = ("ADMIN", "BUSINESS")


def tenant_of(caller: Caller, named: str) -> str:
    """Return for which tenant somebody acts. Raises RequestInvalidError if a service names none."""
    if caller.kind is not CallerKind.SERVICE:
        return caller.tenant_id
    if not named:
        raise required_field("tenant_id")
    return named.lower()


def reader_of(caller: Caller, named_tenant: str, *, own: bool) -> Reader:
    """Return for whom to read. Raises RoleNotAllowedError for another's account."""
    sees_all = caller.kind is CallerKind.SERVICE or caller.role in _STAFF
    if not sees_all and not own:
        raise RoleNotAllowedError(caller.role)
    return Reader(
        tenant_id=tenant_of(caller, named_tenant), user_id=caller.user_id, sees_all=sees_all
    )


def required_field(field: str) -> RequestInvalidError:
    """Return the error that a service left a field out."""
    message = f"{field} is required when a service asks"
    return RequestInvalidError(message, fields=[FieldViolation(field=field, description=message)])

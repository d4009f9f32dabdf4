"""Says for which tenant a caller asks: its own, and for services the one that they name."""

from services.location.errors import NotYourTenantError
from services.shared.errors import FieldViolation, RequestInvalidError
from services.shared.rpc.caller import CallerKind, current_caller


def tenant_asked_for(named: str) -> str:
    """Return the tenant. Raises NotYourTenantError, or RequestInvalidError if a service names none.

    A UUID may come in capitals; keys are in small letters.
    """
    caller = current_caller()
    named = named.lower()
    if caller.kind is CallerKind.SERVICE:
        if not named:
            description = "a service must name the tenant"
            raise RequestInvalidError(
                f"tenant_id: {description}",
                fields=[FieldViolation(field="tenant_id", description=description)],
            )
        return named
    if named and named != caller.tenant_id:
        raise NotYourTenantError(named)
    return caller.tenant_id

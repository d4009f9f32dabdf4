"""The tenants' accounts at the gateways, as a setting holds them.

The setting is a JSON object: for each gateway a `default` account for all tenants, and `tenants`
with accounts of their own by tenant id, where null says that a tenant has none:

    {"payhere": {"default": {"merchant_id": "…", "secret": "…"}, "tenants": {"<uuid>": null}}}

When a secret is changed at the gateway, the old one stays as `previous_secret` until what was begun
with it is paid.
"""

import json
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from services.ledger.deposit_ports import GatewayAccount, PaymentGateway
from services.ledger.domain.deposits import GatewayName
from services.ledger.gateways.kashier import Kashier
from services.ledger.gateways.payhere import PayHere

_MERCHANT = r"^[A-Za-z0-9_-]{1,64}$"


class _Strict(BaseModel):
    # Whatever is wrong with it, a secret is not printed.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class _Account(_Strict):
    merchant_id: str = Field(pattern=_MERCHANT)
    secret: SecretStr = Field(min_length=8)
    previous_secret: SecretStr | None = Field(None, min_length=8)
    mode: Literal["test", "live"] = "test"
    minimum_minor: int = Field(100, ge=1)
    maximum_minor: int = Field(5_000_000, ge=1, le=10**13)
    return_url: str = Field("", pattern="^(https?://.+)?$", max_length=512)
    checkout_url: str = Field("", pattern="^(https?://[^?#]+)?$", max_length=512)

    def account(self) -> GatewayAccount:
        return GatewayAccount(
            merchant_id=self.merchant_id,
            secret=self.secret.get_secret_value(),
            previous_secret=(
                self.previous_secret.get_secret_value() if self.previous_secret else ""
            ),
            live=self.mode == "live",
            minimum_minor=self.minimum_minor,
            maximum_minor=self.maximum_minor,
            return_url=self.return_url,
            checkout_url=self.checkout_url,
        )


class _Gateway(_Strict):
    default: _Account | None = None
    tenants: dict[UUID, _Account | None] = {}


class _Gateways(_Strict):
    payhere: _Gateway = _Gateway()
    kashier: _Gateway = _Gateway()


class ConfiguredGateways:
    """Knows the gateways and the accounts of a setting."""

    def __init__(self, setting: SecretStr) -> None:
        """Read the setting; empty text is no account at all. Raises ValueError without secrets."""
        configured = _parse(setting.get_secret_value())
        self._gateways: dict[GatewayName, PaymentGateway] = {
            GatewayName.PAYHERE: PayHere(),
            GatewayName.KASHIER: Kashier(),
        }
        settings = {
            GatewayName.PAYHERE: configured.payhere,
            GatewayName.KASHIER: configured.kashier,
        }
        self._default = {
            name: one.default.account() if one.default else None for name, one in settings.items()
        }
        self._own = {
            (name, str(tenant_id)): account.account() if account else None
            for name, one in settings.items()
            for tenant_id, account in one.tenants.items()
        }

    def gateway(self, name: GatewayName) -> PaymentGateway:
        """Return a gateway."""
        return self._gateways[name]

    def account(self, name: GatewayName, tenant_id: str) -> GatewayAccount | None:
        """Return a tenant's account, the default one if nothing is said of the tenant, or None."""
        return self._own.get((name, tenant_id), self._default[name])

    def accounts(self, name: GatewayName) -> list[GatewayAccount]:
        """Return every account at a gateway."""
        own = [account for (gateway, _), account in self._own.items() if gateway is name]
        return [account for account in (self._default[name], *own) if account is not None]


def _parse(text: str) -> _Gateways:
    try:
        return _Gateways.model_validate(json.loads(text) if text else {})
    except json.JSONDecodeError:
        problem = "it is not JSON"
    except ValidationError as error:
        problem = "; ".join(
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}"
            for one in error.errors(include_input=False, include_url=False)
        )
    # Outside of the handlers, so that the error does not drag the text along.
    raise ValueError(f"the setting of payment gateways is wrong: {problem}")

"""What IdentityService is told by its environment. Read once, by __main__.py."""

from datetime import timedelta
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator

from services.identity.errors import PhoneInvalidError
from services.identity.phones import parse_phone
from services.shared.ids import is_uuid
from services.shared.settings import ServiceSettings


class IdentitySettings(ServiceSettings):
    """The settings of every service, and those of this one.

    `identity_x` is read from WAYFARE_IDENTITY_X.
    """

    identity_signing_key_dir: Path = Field(
        Path("signing-keys"),
        description="Folder of Ed25519 private keys, <kid>.pem; the lexically greatest kid signs.",
    )
    identity_session_lifetime: timedelta = Field(
        timedelta(days=90), gt=timedelta(), description="Longest life of a session."
    )
    identity_refresh_token_lifetime: timedelta = Field(
        timedelta(days=30), gt=timedelta(), description="Longest time between two refreshes."
    )
    identity_refresh_replay_window: timedelta = Field(
        timedelta(minutes=5),
        ge=timedelta(),
        le=timedelta(hours=1),
        description="How long a refresh may be repeated under the same request id.",
    )
    identity_argon2_memory_kibibytes: int = Field(
        19_456, ge=1024, description="Memory of one password hash."
    )
    identity_argon2_passes: int = Field(2, ge=1, description="Passes of one password hash.")
    identity_argon2_threads: int = Field(
        2, ge=1, le=64, description="Most password hashes at once."
    )
    identity_argon2_waiting_max: int = Field(
        64, ge=0, description="Most password hashes that wait; beyond, callers get OVERLOADED."
    )
    identity_upkeep_seconds: float = Field(
        10.0, gt=0, description="Time between two writes of API key counts."
    )
    identity_bootstrap_tenant_id: str = Field("", description="UUID of the first tenant.")
    identity_bootstrap_tenant_name: str = Field("", description="Name of the first tenant.")
    identity_bootstrap_admin_phone: str = Field("", description="Its ADMIN's phone, E.164.")
    identity_bootstrap_admin_password: SecretStr = Field(
        SecretStr(""),
        description="Its ADMIN's password at first; changing it here changes nothing.",
    )

    @property
    def has_bootstrap(self) -> bool:
        """Return whether a first tenant and ADMIN are wanted."""
        return bool(self.identity_bootstrap_tenant_id)

    @model_validator(mode="after")
    def _check_bootstrap_is_whole(self) -> Self:
        values = (
            self.identity_bootstrap_tenant_id,
            self.identity_bootstrap_tenant_name,
            self.identity_bootstrap_admin_phone,
            self.identity_bootstrap_admin_password.get_secret_value(),
        )
        if any(values) and not all(values):
            raise ValueError("WAYFARE_IDENTITY_BOOTSTRAP_* needs all four values, or none")
        if not any(values):
            return self
        if not is_uuid(self.identity_bootstrap_tenant_id):
            raise ValueError("WAYFARE_IDENTITY_BOOTSTRAP_TENANT_ID is not a UUID")
        try:
            parse_phone(self.identity_bootstrap_admin_phone)
        except PhoneInvalidError as error:
            raise ValueError("WAYFARE_IDENTITY_BOOTSTRAP_ADMIN_PHONE is no phone number") from error
        return self

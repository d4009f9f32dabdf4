"""What a ledger process is told by its environment."""

from pydantic import Field, SecretStr

from services.shared.settings import ServiceSettings


class LedgerSettings(ServiceSettings):
    """Holds what a ledger process is told beside what every process is."""

    ledger_batch_max: int = Field(
        400, ge=1, le=5_000, description="Transfers that are committed together, about."
    )
    ledger_waiting_max: int = Field(
        20_000, ge=1, description="Transfers that may wait; more are refused with OVERLOADED."
    )
    ledger_committers: int = Field(
        2, ge=1, le=16, description="Batches that are committed at once by this process."
    )
    ledger_gather_seconds: float = Field(
        0.01, ge=0, le=1, description="How long transfers gather before a batch of a busy process."
    )
    ledger_expire_seconds: float = Field(
        0.5, gt=0, description="How often pending transfers are looked for whose time is over."
    )
    ledger_fold_seconds: float = Field(
        1.0, gt=0, description="How often the platform's accounts are brought up to date."
    )
    ledger_driver_debt_max_minor: int = Field(
        50_000,
        ge=0,
        description="What a driver's wallet may owe, in minor units, when cash trips open it.",
    )
    ledger_payment_gateways: SecretStr = Field(
        SecretStr(""),
        description="Accounts at payment gateways, as JSON: see gateways/accounts.py.",
    )
    ledger_public_url: str = Field(
        "http://127.0.0.1:8080",
        pattern="^https?://[^?#]+$",
        description="Where payment gateways and browsers reach the edge.",
    )
    ledger_deposit_seconds: int = Field(
        3_600, ge=1, le=2_592_000, description="How long a deposit is waited for, usually."
    )
    ledger_deposit_work_seconds: float = Field(
        1.0, gt=0, description="How often deposits are looked for that expired or were cut off."
    )
    ledger_webhook_stranger_lines: int = Field(
        10, ge=1, description="Audit lines a minute of webhooks without a valid signature."
    )
    ledger_webhook_gateway_lines: int = Field(
        600, ge=1, description="Audit lines a minute of signed webhooks that change nothing."
    )
    ledger_webhook_sum_seconds: float = Field(
        10.0, gt=0, description="How often webhooks beyond these are written down as sums."
    )
    ledger_relay_seconds: float = Field(
        0.05, gt=0, description="How long the relay of events rests when there are none."
    )
    ledger_event_entries_kept: int = Field(
        10_000, ge=1_000, description="Entries that each of 8 streams of events in Valkey keeps."
    )

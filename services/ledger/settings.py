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
    ledger_seal_seconds: float = Field(
        2.0, gt=0, description="How often transfers are sealed into the chain."
    )
    ledger_seal_block_max: int = Field(
        4_096, ge=1, le=50_000, description="Transfers in a block of the chain, about."
    )
    ledger_walk_seconds: float = Field(
        20.0, gt=0, le=50, description="How long one call of VerifyChain walks, about."
    )
    ledger_reconcile_hour: int = Field(
        2, ge=0, le=23, description="Hour of the day, in UTC, of the nightly reconciliation."
    )
    ledger_audit_statement_seconds: float = Field(
        300.0, gt=0, description="How long one statement of a reconciliation may take."
    )
    ledger_relay_seconds: float = Field(
        0.05, gt=0, description="How long the relay of events rests when there are none."
    )
    ledger_event_entries_kept: int = Field(
        10_000, ge=1_000, description="Entries that each of 8 streams of events in Valkey keeps."
    )
    ledger_withdrawal_min_minor: int = Field(
        1_000, ge=1, description="The least that is paid out at once, in minor units."
    )
    ledger_payout_provider: str = Field(
        "none",
        pattern="^(none|http|demo)$",
        description="Who pays out: nobody, a payout bridge, or nobody while saying so (demo).",
    )
    ledger_payout_url: str = Field(
        "https://payouts.invalid", description="Where the payout bridge is; https, or loopback."
    )
    ledger_payout_secret: SecretStr = Field(
        SecretStr(""), description="Bearer secret that the payout bridge knows us by."
    )
    ledger_payout_timeout_seconds: float = Field(
        10.0, gt=0, le=30, description="How long one call of the payout bridge may take."
    )
    ledger_payout_idle_seconds: float = Field(
        1.0, gt=0, description="How often withdrawals are looked for that must move on."
    )
    ledger_payout_retry_seconds: float = Field(
        2.0, gt=0, description="About after what time a payout is asked about first; then doubled."
    )
    ledger_payout_lease_seconds: float = Field(
        90.0, ge=1, description="After what time a payout of a process that died is taken over."
    )
    ledger_fraud_seconds: float = Field(
        1.0, gt=0, description="How often what moved is looked at for fraud."
    )

"""Reads what every service is told by its environment.

Each service adds its own in its settings.py.
"""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServiceSettings(BaseSettings):
    """Holds what every process is told.

    Read once at the start; a wrong value stops it and names itself.

    Every variable has the prefix WAYFARE_: `listen` is read from WAYFARE_LISTEN.
    """

    model_config = SettingsConfigDict(env_prefix="WAYFARE_", frozen=True, extra="ignore")

    instance: str = Field("local", description="Name of this process, unique in the deployment.")
    listen: str = Field("127.0.0.1:9000", description="gRPC address: host:port or unix:/path.")
    metrics_listen: str = Field(
        "127.0.0.1:0", description="host:port of /metrics, /healthz, /readyz."
    )
    database_url: SecretStr = Field(
        SecretStr("postgresql://127.0.0.1/wayfare"), description="DSN of the service's own role."
    )
    database_pool_size: int = Field(8, ge=1, le=200, description="Most connections to PostgreSQL.")
    valkey_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="redis://host:port/0 or unix:///path; of a cluster several, with commas.",
    )
    valkey_cluster: bool = Field(False, description="Whether valkey_url names nodes of a cluster.")
    jwks_file: Path = Field(Path("jwks.json"), description="Public keys of access tokens, as JWKS.")
    mesh_address: str = Field("127.0.0.1:8081", description="Envoy's mesh listener, host:port.")
    mesh_certificate_dir: Path = Field(
        Path("certificates"), description="Folder with ca.pem, <service>.pem and <service>.key."
    )
    log_format: str = Field("json", pattern="^(json|console)$", description="json or console.")
    log_level: str = Field(
        "INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least level."
    )
    drain_seconds: float = Field(
        30.0, ge=0, le=600, description="How long streams may take to leave when the process stops."
    )
    message_bytes_max: int = Field(
        1_048_576, ge=1024, description="Largest message that a service reads, in bytes."
    )
    streams_max: int = Field(
        20_000, ge=1, description="Most streams that this process holds open at once."
    )

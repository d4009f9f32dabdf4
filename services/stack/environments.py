"""The environment that the stack gives to the processes of each service, and the demo tenant."""

import os

from services.stack.home import Home
from services.stack.passwords import read_or_create_key, read_or_create_secret
from services.stack.payment_gateways import payment_accounts

DEMO_TENANT_ID = "0198c000-0000-7000-8000-000000000001"
DEMO_TENANT_NAME = "Demo Transit"
# Enough that each of three masters has its share of them, wherever their slots fall.
CLUSTER_BUCKETS = 12
DEMO_ADMIN_PHONE = "+441514960001"
_PAYMENT_GATEWAYS = "WAYFARE_LEDGER_PAYMENT_GATEWAYS"


def admin_password(home: Home) -> str:
    """Return the password of the demo tenant's administrator; made at random once per home."""
    return read_or_create_secret(home.secrets / "admin-password")


def service_environment(
    service: str,
    *,
    database_dsn: str,
    valkey_url: str,
    valkey_cluster: bool,
    mesh_address: str,
    edge_address: str,
    home: Home,
) -> dict[str, str]:
    """Return what every process of a service is told, besides its own name and addresses."""
    environment = {
        "WAYFARE_DATABASE_URL": database_dsn,
        "WAYFARE_VALKEY_URL": valkey_url,
        "WAYFARE_VALKEY_CLUSTER": str(valkey_cluster).lower(),
        "WAYFARE_JWKS_FILE": str(home.jwks_file),
        "WAYFARE_MESH_ADDRESS": mesh_address,
        "WAYFARE_MESH_CERTIFICATE_DIR": str(home.certificates),
        "WAYFARE_LOG_FORMAT": "json",
    }
    if valkey_cluster and service == "location":
        environment["WAYFARE_LOCATION_BUCKET_COUNT"] = str(CLUSTER_BUCKETS)
    if service == "ledger":
        environment["WAYFARE_LEDGER_PUBLIC_URL"] = f"http://{edge_address}"
        # Somebody's own accounts, of a gateway's sandbox, go before those that are made up here.
        accounts = os.environ.get(_PAYMENT_GATEWAYS) or payment_accounts(home.secrets).setting()
        environment[_PAYMENT_GATEWAYS] = accounts
        # A laptop has no bank: what an ADMIN approves is said to be paid.
        provider = os.environ.get("WAYFARE_LEDGER_PAYOUT_PROVIDER", "demo")
        environment["WAYFARE_LEDGER_PAYOUT_PROVIDER"] = provider
    if service == "identity":
        environment |= {
            "WAYFARE_IDENTITY_SIGNING_KEY_DIR": str(home.signing_keys),
            "WAYFARE_IDENTITY_BOOTSTRAP_TENANT_ID": DEMO_TENANT_ID,
            "WAYFARE_IDENTITY_BOOTSTRAP_TENANT_NAME": DEMO_TENANT_NAME,
            "WAYFARE_IDENTITY_BOOTSTRAP_ADMIN_PHONE": DEMO_ADMIN_PHONE,
            "WAYFARE_IDENTITY_BOOTSTRAP_ADMIN_PASSWORD": admin_password(home),
        }
    if service == "booking":
        folder = home.secrets / "booking"
        environment |= {
            "WAYFARE_BOOKING_TICKET_KEY_SECRETS": read_or_create_key(folder / "ticket-key-secrets"),
            "WAYFARE_BOOKING_PASSENGER_KEYS": read_or_create_key(
                folder / "passenger-keys", key_id="1"
            ),
        }
    return environment

"""Makes every secret of docker-compose.yml and renders Envoy's bootstrap; runs before all else.

Called by the job `secrets`. What exists is kept, so a second run changes only what is missing or
near its end. Each subfolder of the output is mounted into the one container that needs it:

    postgres/             the superuser's password
    booking/, identity/, ledger/, location/  what a service reads
    envoy/                bootstrap, certificates, public keys
    migrate/              a home for `wayfare migrate`
    authority/            the local certificate authority, mounted nowhere else
"""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import yaml

from services.stack.certificates import ENVOY, write_certificates
from services.stack.passwords import read_or_create_key, read_or_create_secret, write_private_file
from services.stack.payment_gateways import payment_accounts
from services.stack.signing_keys import ensure_signing_key, write_jwks
from wayfare_envoy.render import render_bootstrap
from wayfare_envoy.topology import Endpoint, Topology

SERVICES = ("booking", "identity", "ledger", "location")
INSTANCES = ("booking", "identity", "ledger", "location-1", "location-2")
PORT = 9000
PROJECT_FOLDER = Path(__file__).parents[1]
# The users of deploy/Dockerfile and of Envoy's image.
SERVICE_USER = 10001
ENVOY_USER = 101


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare the folder that is named on the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="as mounted everywhere")
    parser.add_argument("--keep-owner", action="store_true", help="for a try without root")
    options = parser.parse_args(arguments)
    prepare(options.output, now=datetime.now(UTC))
    if not options.keep_owner:
        _hand_over(options.output)
    return 0


def prepare(output: Path, *, now: datetime) -> None:
    """Write whatever is missing below `output`."""
    authority = output / "authority"
    write_certificates(authority, SERVICES, now=now)
    signing_keys = output / "identity" / "signing-keys"
    ensure_signing_key(signing_keys, now=now)
    read_or_create_secret(output / "identity" / "admin-password")
    read_or_create_key(output / "booking" / "ticket-key-secrets")
    read_or_create_key(output / "booking" / "passenger-keys", key_id="1")
    superuser = read_or_create_secret(output / "postgres" / "password")
    _write_dsn(output / "migrate" / "database-url", role="postgres", password=superuser)
    for service in SERVICES:
        role = f"wayfare_{service}"
        password = read_or_create_secret(output / "migrate" / "secrets" / "postgres" / role)
        _write_dsn(output / service / "database-url", role=role, password=password)
        _copy_certificates(authority, output / service, service)
        write_jwks(signing_keys, output / service / "jwks.json")
    _write_payment_gateways(output)
    _prepare_envoy(output / ENVOY, authority=authority, signing_keys=signing_keys)


def _prepare_envoy(folder: Path, *, authority: Path, signing_keys: Path) -> None:
    _copy_certificates(authority, folder, ENVOY)
    write_jwks(signing_keys, folder / "jwks.json")
    descriptors = folder / "descriptors.binpb"
    shutil.copyfile(PROJECT_FOLDER / "gen" / "descriptors.binpb", descriptors)
    topology = Topology(
        edge_address="0.0.0.0:8080",
        mesh_address="0.0.0.0:8443",
        admin_address="127.0.0.1:9901",
        services={
            service: [
                Endpoint(instance=instance, address=f"{instance}:{PORT}")
                for instance in INSTANCES
                if instance.split("-")[0] == service
            ]
            for service in SERVICES
        },
        certificate_dir=folder / "certificates",
        jwks_file=folder / "jwks.json",
        descriptor_set=descriptors,
        cors_origins=("*",),
    )
    bootstrap = yaml.safe_dump(render_bootstrap(topology), sort_keys=False)
    (folder / "envoy.yaml").write_text(bootstrap)


def _copy_certificates(authority: Path, folder: Path, name: str) -> None:
    certificates = folder / "certificates"
    certificates.mkdir(parents=True, exist_ok=True)
    for file in ("ca.pem", f"{name}.pem", f"{name}.key"):
        shutil.copy2(authority / file, certificates / file)


def _write_dsn(path: Path, *, role: str, password: str) -> None:
    dsn = f"postgresql://{role}:{password}@postgres:5432/wayfare?sslmode=disable"
    write_private_file(path, f"{dsn}\n".encode())


def _write_payment_gateways(output: Path) -> None:
    """Write test accounts, unless somebody put accounts of their own there."""
    path = output / "ledger" / "payment-gateways"
    if not path.exists():
        setting = payment_accounts(output / "migrate" / "secrets").setting()
        write_private_file(path, f"{setting}\n".encode())


def _hand_over(output: Path) -> None:
    """Give each folder to the user of the container that reads it, and close it to others."""
    owners = {ENVOY: ENVOY_USER, **dict.fromkeys((*SERVICES, "migrate"), SERVICE_USER)}
    for name, user in owners.items():
        for path in (output / name, *(output / name).rglob("*")):
            os.chown(path, user, user)
            path.chmod(0o700 if path.is_dir() else 0o600)


if __name__ == "__main__":
    sys.exit(main())

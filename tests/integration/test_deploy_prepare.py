"""The secrets and the Envoy configuration that docker-compose.yml mounts into its containers."""

import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from deploy.prepare import INSTANCES, prepare
from services.stack.programs import envoy_program
from tests.style.contract import PROJECT

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    prepare(tmp_path, now=NOW)
    return tmp_path


def test_each_folder_holds_what_its_container_reads_and_no_other_s_key(output: Path) -> None:
    keys = {str(path.relative_to(output)) for path in output.rglob("*.key")}

    assert (output / "identity" / "jwks.json").exists()
    assert (output / "location" / "database-url").exists()
    assert {key for key in keys if not key.startswith("authority/")} == {
        "booking/certificates/booking.key",
        "envoy/certificates/envoy.key",
        "identity/certificates/identity.key",
        "ledger/certificates/ledger.key",
        "location/certificates/location.key",
    }


def test_secrets_are_closed_to_other_users(output: Path) -> None:
    secrets = [*output.rglob("*.key"), *output.rglob("database-url"), *output.rglob("*password")]

    assert secrets
    assert not [path for path in secrets if path.stat().st_mode & 0o077]


def test_a_second_run_keeps_every_secret(output: Path) -> None:
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}

    prepare(output, now=NOW)

    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before


def test_a_service_connects_with_the_password_that_the_migration_gives_its_role(
    output: Path,
) -> None:
    for service in ("booking", "identity", "ledger", "location"):
        role = f"wayfare_{service}"
        password = (output / "migrate" / "secrets" / "postgres" / role).read_text().strip()

        assert f"{role}:{password}@postgres" in (output / service / "database-url").read_text()


def test_envoy_takes_the_configuration(output: Path) -> None:
    command = [envoy_program(), "--mode", "validate", "-c", str(output / "envoy" / "envoy.yaml")]

    result = subprocess.run(command, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr[-2000:]


def test_envoy_knows_every_process_of_the_compose_file(output: Path) -> None:
    compose = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())["services"]
    processes = {
        name
        for name, service in compose.items()
        if "WAYFARE_INSTANCE" in service.get("environment", {})
    }
    bootstrap = (output / "envoy" / "envoy.yaml").read_text()

    assert processes == set(INSTANCES)
    assert processes <= set(re.findall(r"address: ([a-z0-9-]+)$", bootstrap, re.MULTILINE))

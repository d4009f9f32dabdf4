"""The local authority: what it issues, when it renews, and who may read its keys."""

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from services.stack.certificates import write_certificates

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SERVICES = ["identity", "location"]


def _read(folder: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes())


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _names(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def _purposes(certificate: x509.Certificate) -> set[x509.ObjectIdentifier]:
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    return set(usage.value)


def test_a_service_gets_a_client_certificate_with_its_spiffe_id(tmp_path: Path) -> None:
    write_certificates(tmp_path, SERVICES, now=NOW)

    certificate = _read(tmp_path, "location")
    certificate.verify_directly_issued_by(_read(tmp_path, "ca"))
    uris = _names(certificate).get_values_for_type(x509.UniformResourceIdentifier)
    assert uris == ["spiffe://wayfare/location"]
    assert _purposes(certificate) == {ExtendedKeyUsageOID.CLIENT_AUTH}


def test_envoy_s_certificate_serves_every_name_that_the_mesh_is_called_by(tmp_path: Path) -> None:
    write_certificates(tmp_path, SERVICES, hostnames=["gateway.internal", "10.0.0.7"], now=NOW)

    certificate = _read(tmp_path, "envoy")
    names = _names(certificate)
    assert {"mesh.wayfare", "localhost", "envoy", "gateway.internal"} <= set(
        names.get_values_for_type(x509.DNSName)
    )
    assert {"127.0.0.1", "10.0.0.7"} <= {
        str(address) for address in names.get_values_for_type(x509.IPAddress)
    }
    assert ExtendedKeyUsageOID.SERVER_AUTH in _purposes(certificate)


def test_a_second_call_changes_nothing(tmp_path: Path) -> None:
    first = write_certificates(tmp_path, SERVICES, now=NOW)
    before = _contents(tmp_path)

    assert first == ["ca", "envoy", *SERVICES]
    assert write_certificates(tmp_path, SERVICES, now=NOW + timedelta(days=1)) == []
    assert _contents(tmp_path) == before


def test_keys_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    write_certificates(tmp_path / "mesh", SERVICES, now=NOW)

    for path in (tmp_path / "mesh").glob("*.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "mesh").stat().st_mode) == 0o700


def test_a_new_service_joins_without_touching_the_others(tmp_path: Path) -> None:
    write_certificates(tmp_path, SERVICES, now=NOW)
    before = _contents(tmp_path)

    assert write_certificates(tmp_path, [*SERVICES, "booking"], now=NOW) == ["booking"]
    assert before.items() <= _contents(tmp_path).items()


def test_certificates_near_their_end_are_replaced_by_the_same_authority(tmp_path: Path) -> None:
    write_certificates(tmp_path, SERVICES, now=NOW)
    authority = _read(tmp_path, "ca")
    later = NOW + timedelta(days=70)

    assert write_certificates(tmp_path, SERVICES, now=later) == ["envoy", *SERVICES]
    assert _read(tmp_path, "ca") == authority
    assert _read(tmp_path, "identity").not_valid_after_utc > later + timedelta(days=60)


def test_an_authority_near_its_end_is_replaced_with_all_that_it_issued(tmp_path: Path) -> None:
    write_certificates(tmp_path, SERVICES, now=NOW)

    later = NOW + timedelta(days=3640)
    assert write_certificates(tmp_path, SERVICES, now=later) == ["ca", "envoy", *SERVICES]
    _read(tmp_path, "identity").verify_directly_issued_by(_read(tmp_path, "ca"))


@pytest.mark.parametrize("damage", [b"", b"garbage", b"-----BEGIN PRIVATE KEY-----\n"])
def test_a_damaged_file_is_replaced(tmp_path: Path, damage: bytes) -> None:
    write_certificates(tmp_path, SERVICES, now=NOW)
    (tmp_path / "identity.key").write_bytes(damage)

    assert write_certificates(tmp_path, SERVICES, now=NOW) == ["identity"]


def test_a_certificate_of_another_service_s_key_is_replaced(tmp_path: Path) -> None:
    write_certificates(tmp_path, SERVICES, now=NOW)
    (tmp_path / "identity.key").write_bytes((tmp_path / "location.key").read_bytes())

    assert write_certificates(tmp_path, SERVICES, now=NOW) == ["identity"]


def test_a_new_name_of_the_mesh_renews_envoy_s_certificate_only(tmp_path: Path) -> None:
    write_certificates(tmp_path, SERVICES, now=NOW)

    renewed = write_certificates(tmp_path, SERVICES, hostnames=["envoy.internal"], now=NOW)
    assert renewed == ["envoy"]

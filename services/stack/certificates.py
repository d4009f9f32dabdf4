"""Makes the local certificate authority and the certificates by which services know each other.

Called by the stack at every start and by `wayfare certs`. Elsewhere an authority of the operator's
own issues the same files: `ca.pem`, `<service>.pem`, `<service>.key`, and `envoy.pem`, `envoy.key`
for the mesh listener.
"""

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

TRUST_DOMAIN = "wayfare"
MESH_HOSTNAME = "mesh.wayfare"
ENVOY = "envoy"

_AUTHORITY_DAYS = 3650
_CERTIFICATE_DAYS = 90
# A certificate is replaced while it still has this long to live, so that no running process meets
# its end.
_RENEWAL_DAYS = 30
# Clocks of two machines may differ; a certificate is valid a little before it was made.
_BACKDATED = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class _Pair:
    """Hold a certificate with its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def spiffe_id(service: str) -> str:
    """Return the name by which the mesh knows a service."""
    return f"spiffe://{TRUST_DOMAIN}/{service}"


def write_certificates(
    folder: Path,
    services: Sequence[str],
    *,
    hostnames: Sequence[str] = (),
    now: datetime | None = None,
) -> list[str]:
    """Write what is missing or near its end; return the names that were (re)issued.

    A second call changes nothing. Key files are readable by their owner only. `hostnames` are names
    or IP addresses under which services reach Envoy's mesh listener, besides mesh.wayfare, envoy,
    localhost and the loopback addresses.
    """
    moment = now or datetime.now(UTC)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    written = []
    authority = _read_pair(folder, "ca")
    if authority is None or _is_near_end(authority.certificate, moment):
        authority = _new_authority(moment)
        _write_pair(folder, "ca", authority)
        written.append("ca")
    envoy_names = (MESH_HOSTNAME, ENVOY, "localhost", "127.0.0.1", "::1", *hostnames)
    for name in dict.fromkeys((ENVOY, *services)):
        alternatives = _alternative_names(name, envoy_names if name == ENVOY else ())
        existing = _read_pair(folder, name)
        if existing is None or not _is_current(
            existing.certificate, authority, alternatives, moment
        ):
            _write_pair(folder, name, _new_certificate(name, authority, alternatives, moment))
            written.append(name)
    return written


def _alternative_names(service: str, hosts: Sequence[str]) -> x509.SubjectAlternativeName:
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(spiffe_id(service))]
    names += [_host_name(host) for host in dict.fromkeys(hosts)]
    return x509.SubjectAlternativeName(names)


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _is_near_end(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_after_utc - now < timedelta(days=_RENEWAL_DAYS)


def _is_current(
    certificate: x509.Certificate,
    authority: _Pair,
    alternatives: x509.SubjectAlternativeName,
    now: datetime,
) -> bool:
    try:
        certificate.verify_directly_issued_by(authority.certificate)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (InvalidSignature, ValueError, TypeError, x509.ExtensionNotFound):
        return False
    return names.value == alternatives and not _is_near_end(certificate, now)


def _new_authority(now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _subject("Wayfare local authority")
    certificate = (
        _builder(name, name, key.public_key(), now=now, days=_AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usages(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return _Pair(certificate, key)


def _new_certificate(
    name: str, authority: _Pair, alternatives: x509.SubjectAlternativeName, now: datetime
) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.certificate.subject
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if name == ENVOY:
        purposes.append(ExtendedKeyUsageOID.SERVER_AUTH)
    authority_key_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(
        authority.key.public_key()
    )
    certificate = (
        _builder(_subject(name), issuer, key.public_key(), now=now, days=_CERTIFICATE_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usages(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(alternatives, critical=False)
        .add_extension(authority_key_id, critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return _Pair(certificate, key)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    *,
    now: datetime,
    days: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _subject(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Wayfare"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _usages(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _read_pair(folder: Path, name: str) -> _Pair | None:
    """Return a certificate and its key; None if one is absent, unreadable or another's."""
    try:
        certificate = x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes())
        key = serialization.load_pem_private_key((folder / f"{name}.key").read_bytes(), None)
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        return None
    return _Pair(certificate, key) if certificate.public_key() == key.public_key() else None


def _write_pair(folder: Path, name: str, pair: _Pair) -> None:
    key = pair.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    certificate = pair.certificate.public_bytes(serialization.Encoding.PEM)
    _write(folder / f"{name}.key", key, 0o600)
    _write(folder / f"{name}.pem", certificate, 0o644)


def _write(path: Path, content: bytes, mode: int) -> None:
    # In one step, so that a process that starts meanwhile reads the old file or the new one, never
    # half of it.
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    partial.replace(path)

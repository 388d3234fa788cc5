"""Certificates made while the tests run: good ones, and every kind of bad one."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import ipaddress
import pathlib
import subprocess
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
DAY = datetime.timedelta(days=1)
SERVER = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH


@dataclasses.dataclass(frozen=True)
class Certificate:
    """A certificate, its key, and who issued it (None: itself)."""

    key: Any
    certificate: x509.Certificate
    issuer: Certificate | None

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def key_pem(self) -> bytes:
        return bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )

    def chain(self) -> list[Certificate]:
        """The certificate and its issuers, without the root."""
        found, at = [self], self.issuer
        while at is not None and at.issuer is not None:
            found.append(at)
            at = at.issuer
        return found

    def save(self, path: pathlib.Path, whole: bool = True) -> pathlib.Path:
        """Write the key and the chain (or the leaf alone) to a file."""
        parts = [one.pem for one in (self.chain() if whole else [self])]
        path.write_bytes(self.key_pem + b"".join(parts))
        return path

    def revoke(self, *revoked: Certificate, stale: bool = False) -> bytes:
        """A list of revocations by this authority, as PEM."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(NOW - 3 * DAY)
            .next_update(NOW - DAY if stale else NOW + DAY)
            .add_extension(x509.CRLNumber(1), False)
        )
        for one in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(one.certificate.serial_number)
                .revocation_date(NOW - 2 * DAY)
                .build()
            )
        signed = builder.sign(self.key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)


def general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


@functools.cache
def weak_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 1024)


def usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def issue(
    issuer: Certificate | None,
    *names: str,
    common: str = "hotloop's tests",
    days: tuple[int, int] = (-5, 5),
    purposes: tuple[Any, ...] = (SERVER,),
    authority: bool = False,
    path: int | None = None,
    permitted: str | None = None,
    key: Any = None,
) -> Certificate:
    """A new certificate; without an issuer it signs itself."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
    signer = issuer.key if issuer else key
    named = issuer.certificate.subject if issuer else subject
    own_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(named)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + days[0] * DAY)
        .not_valid_after(NOW + days[1] * DAY)
        .add_extension(x509.BasicConstraints(authority, path), True)
        .add_extension(usage(authority), True)
        .add_extension(own_id, False)
        .add_extension(identifier(signer.public_key()), False)
    )
    if names:
        alternatives = x509.SubjectAlternativeName([general_name(n) for n in names])
        builder = builder.add_extension(alternatives, False)
    if purposes and not authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage(list(purposes)), False)
    if permitted is not None:
        allowed = x509.NameConstraints([x509.DNSName(permitted)], None)
        builder = builder.add_extension(allowed, True)
    return Certificate(key, builder.sign(signer, hashes.SHA256()), issuer)


def issue_sha1(issuer: Certificate, host: str, folder: pathlib.Path) -> Certificate:
    """A certificate whose signature is weak, made by the openssl command."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "weak")]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), False)
        .sign(key, hashes.SHA256())
    )
    (folder / "request.pem").write_bytes(
        request.public_bytes(serialization.Encoding.PEM)
    )
    issuer.save(folder / "issuer.pem", whole=False)
    command = ["openssl", "x509", "-req", "-in", "request.pem", "-sha1", "-days", "5"]
    command += ["-CA", "issuer.pem", "-CAkey", "issuer.pem", "-set_serial", "7"]
    command += ["-copy_extensions", "copyall"]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return Certificate(key, x509.load_pem_x509_certificate(done.stdout), issuer)


def root(common: str = "root", **kwargs: Any) -> Certificate:
    """An authority that signs itself."""
    return issue(None, common=common, authority=True, **kwargs)


def between(issuer: Certificate, common: str = "between", **kwargs: Any) -> Certificate:
    """An authority below another one."""
    return issue(issuer, common=common, authority=True, **kwargs)

"""Certificates for the servers of one run, made with the ``openssl`` command."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

ALGORITHMS = {
    "ecdsa": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "rsa": ["-newkey", "rsa:2048"],
}
NAME = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
DAYS = "7"
TIMEOUT = 60.0


class CertificateError(Exception):
    """No certificate can be made; the text says why."""


@dataclass(frozen=True)
class Certificate:
    """The files of one certificate."""

    chain: str
    key: str


def find_openssl() -> str:
    """Return the path of the command."""
    path = shutil.which("openssl")
    if path is None:
        raise CertificateError("no openssl command (Debian: apt install openssl)")
    return path


@functools.cache
def folder() -> tempfile.TemporaryDirectory[str]:
    """Return the folder of this run, which goes with it."""
    return tempfile.TemporaryDirectory(prefix="benchmarks-")


@functools.cache
def certificate(algorithm: str) -> Certificate:
    """Return the certificate of this run with such a key."""
    base = Path(folder().name) / algorithm
    files = Certificate(f"{base}.crt", f"{base}.key")
    command = [find_openssl(), "req", "-x509", "-nodes", "-days", DAYS]
    command += [*ALGORITHMS[algorithm], *NAME]
    command += ["-keyout", files.key, "-out", files.chain]
    try:
        subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=True)
    except subprocess.SubprocessError as exc:
        raise CertificateError(f"openssl makes no certificate: {exc}") from None
    return files

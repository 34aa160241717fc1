"""A certificate that a test makes for a server of its own."""

import subprocess
import uuid
from pathlib import Path


def write_certificate(certificate: Path, key: Path) -> None:
    """Write a self-signed certificate for this machine, valid for a day, and its key (PEM)."""
    # Two authorities of one name are mistaken for each other where a program trusts both.
    command = ["openssl", "req", "-x509", "-nodes", "-days", "1", "-subj", f"/CN=medic {uuid.uuid4().hex}"]
    command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)

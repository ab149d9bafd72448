"""TLS on the front port: a certificate and its key, checked before anything is served."""

from __future__ import annotations

import ssl
from pathlib import Path

from listenai.errors import ConfigurationError


def make_tls_context(certificate: str, key: str) -> ssl.SSLContext | None:
    """What TLS_CERT_FILE and TLS_KEY_FILE say, TLS 1.2 or newer; None: neither is given.

    Raises ConfigurationError where they cannot work.
    """
    if not certificate and not key:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    reload_certificate(context, certificate, key)
    return context


def reload_certificate(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Reads the files again; handshakes from now on show what they hold.

    Raises ConfigurationError where they cannot work; then the context is as it was.
    """
    _check(certificate, key)
    trial = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for checked in (trial, context):
        _load(checked, certificate, key)


def _check(certificate: str, key: str) -> None:
    problems = []
    for variable, file in (("TLS_CERT_FILE", certificate), ("TLS_KEY_FILE", key)):
        if not file:
            problems.append(f"{variable} is empty: certificate and key are needed, both as PEM")
            continue
        try:
            with Path(file).open("rb"):
                pass
        except OSError as error:
            problems.append(f"{variable}={file!r} cannot be read: {error.strerror}")
    if problems:
        raise ConfigurationError(problems)


def _load(context: ssl.SSLContext, certificate: str, key: str) -> None:
    passwords_asked = []

    def no_password() -> str:  # instead of asking on the terminal
        passwords_asked.append(key)
        return ""

    try:
        context.load_cert_chain(certificate, key, password=no_password)
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        if passwords_asked:
            problem = f"TLS_KEY_FILE={key!r} is encrypted; give a key without a password"
        elif "MISMATCH" in reason:
            problem = (
                f"TLS_KEY_FILE={key!r} is not the key of TLS_CERT_FILE={certificate!r}; "
                "give the two that belong together, the server's own certificate first"
            )
        else:
            problem = (
                f"TLS_CERT_FILE={certificate!r} and TLS_KEY_FILE={key!r} cannot be used "
                f"({reason}); both must be PEM: -----BEGIN CERTIFICATE----- and "
                "-----BEGIN PRIVATE KEY-----"
            )
        raise ConfigurationError([problem]) from error

"""The secrets: salts of people's ids, keys of quarantined bytes, tombstones and receipts, and what signs tokens.

They come from the environment or from a file of mode 0600, never from the configuration file. On a laptop
(`environment: local`) a missing one is made once, under work_dir; in production its absence stops the start.
"""

import base64
import os
import secrets
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from features.pseudonyms import Pseudonymizer
from pipelines.errors import UsageError
from pipelines.settings import Settings

KEY_BYTES = 32
LEAST_SALT_LENGTH = 16  # characters; a shorter one can be tried out, and every id with it


class SecretError(UsageError):
    """A secret is missing, readable by others, or malformed. Its value is never shown."""


def pseudonymizer(settings: Settings, environ: Mapping[str, str] = os.environ) -> Pseudonymizer:
    """The hasher of people's ids: REEL_SALT (comma separated, oldest first), else the salt file."""
    text = _secret(
        settings,
        environ,
        variable="REEL_SALT",
        key="privacy.salt_file",
        file=settings.privacy.salt_file,
        embedded=settings.work_dir / "salt",
        make=lambda: secrets.token_hex(16),
    )
    salts = tuple(part.strip() for line in text.splitlines() for part in line.split(",") if part.strip())
    if not salts or min(map(len, salts)) < LEAST_SALT_LENGTH:
        received = f"one of {min(map(len, salts))}" if salts else "none"
        raise SecretError(
            f"salts have {LEAST_SALT_LENGTH} characters or more; received {received}; "
            "make one with `openssl rand -hex 16`"
        )
    return Pseudonymizer(salts)


def quarantine_key(settings: Settings, environ: Mapping[str, str] = os.environ) -> bytes:
    """The AES-256 key of quarantined bytes: base64 in REEL_QUARANTINE_KEY, else the key file."""
    return _key(settings, environ, "quarantine", settings.privacy.quarantine_key_file)


def tombstone_key(settings: Settings, environ: Mapping[str, str] = os.environ) -> bytes:
    """The key that tombstones of erased people are made with: base64 in REEL_TOMBSTONE_KEY, else the key file.

    Without the very key no tombstone is recognised any more, and a replay of Kafka would bring the erased back.
    """
    return _key(settings, environ, "tombstone", settings.privacy.tombstone_key_file)


def receipt_key(settings: Settings, environ: Mapping[str, str] = os.environ) -> bytes:
    """The Ed25519 key (RFC 8032) that receipts of erasures are signed with: base64 in REEL_RECEIPT_KEY, else a file."""
    return _key(settings, environ, "receipt", settings.privacy.receipt_key_file)


def token_secret(settings: Settings, environ: Mapping[str, str] = os.environ) -> str:
    """What bearer tokens are signed with where there is no identity provider: REEL_TOKEN_SECRET, else the file."""
    text = _secret(
        settings,
        environ,
        variable="REEL_TOKEN_SECRET",
        key="serving.tokens.secret_file",
        file=settings.serving.tokens.secret_file,
        embedded=token_secret_file(settings),
        make=lambda: secrets.token_hex(KEY_BYTES),
    ).strip()
    if len(text.encode()) < KEY_BYTES:
        raise SecretError(
            f"the secret of tokens has {KEY_BYTES} bytes or more; received {len(text.encode())}; "
            "make one with `openssl rand -hex 32`"
        )
    return text


def token_secret_file(settings: Settings) -> Path:
    """Where it is looked for when the environment does not say it."""
    return settings.serving.tokens.secret_file or settings.work_dir / "token.secret"


def _key(settings: Settings, environ: Mapping[str, str], name: str, file: Path | None) -> bytes:
    """Random bytes, `KEY_BYTES` of them."""
    text = _secret(
        settings,
        environ,
        variable=f"REEL_{name.upper()}_KEY",
        key=f"privacy.{name}_key_file",
        file=file,
        embedded=settings.work_dir / f"{name}.key",
        make=lambda: base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode(),
    )
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except ValueError:
        raise SecretError(f"the {name} key is not base64; make one with `openssl rand -base64 32`") from None
    if len(key) != KEY_BYTES:
        raise SecretError(
            f"the {name} key must be {KEY_BYTES} bytes; received {len(key)}; make one with `openssl rand -base64 32`"
        )
    return key


def _secret(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    variable: str,
    key: str,
    file: Path | None,
    embedded: Path,
    make: Callable[[], str],
) -> str:
    if environ.get(variable):
        return environ[variable]
    if file is not None:
        return _read_private(file, key)
    if settings.environment == "production":
        raise SecretError(f"{variable} is not set and there is no {key}: in production Reel does not start without it")
    if not embedded.exists():
        embedded.parent.mkdir(parents=True, exist_ok=True)
        _write_once(embedded, make())
    return _read_private(embedded, key)


def _read_private(file: Path, key: str) -> str:
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
        if mode & 0o077:
            raise SecretError(f"{key}: {file} has mode {mode:04o}, others can read it; run: chmod 600 {file}")
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SecretError(f"{key}: {file} cannot be read: {error}") from None


def _write_once(file: Path, text: str) -> None:
    """Write a new private file; of two processes that try, the first wins and both read its secret."""
    draft = file.with_suffix(f".{os.getpid()}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as handle:
        handle.write(text)
    try:
        os.link(draft, file)
    except FileExistsError:
        return
    finally:
        draft.unlink()

"""Secrets: from the environment or a private file, made once on a laptop, and never shown."""

import base64
import hashlib
import multiprocessing
import stat
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from pipelines.errors import UsageError
from pipelines.secrets import SecretError, pseudonymizer, quarantine_key
from pipelines.settings import PrivacySettings, Settings

SALT, KEY = "a salt of twenty bytes", bytes(range(32))


def local(folder: Path, **privacy: Path) -> Settings:
    return Settings(work_dir=folder / "work", privacy=PrivacySettings(**privacy))


def production(folder: Path, **privacy: Path) -> Settings:
    return Settings(environment="production", work_dir=folder / "work", privacy=PrivacySettings(**privacy))


def private(folder: Path, text: str, mode: int = 0o600) -> Path:
    file = folder / "secret"
    file.write_text(text)
    file.chmod(mode)
    return file


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("secret", [pseudonymizer, quarantine_key])
def test_production_does_not_start_without(tmp_path: Path, secret):
    with pytest.raises(SecretError, match=r"REEL_(SALT|QUARANTINE_KEY) is not set and there is no privacy\.\w+_file"):
        secret(production(tmp_path), {})
    with pytest.raises(SecretError):
        secret(production(tmp_path), {"REEL_SALT": "", "REEL_QUARANTINE_KEY": ""})
    assert issubclass(SecretError, UsageError)
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("settings", [local, production])
def test_the_environment_comes_first(tmp_path: Path, settings):
    file = private(tmp_path, "another salt, of the file")
    people = pseudonymizer(settings(tmp_path, salt_file=file), {"REEL_SALT": SALT})
    assert people.hash("u1") == sha256("u1" + SALT)
    encoded = base64.b64encode(KEY).decode()
    assert quarantine_key(settings(tmp_path, quarantine_key_file=file), {"REEL_QUARANTINE_KEY": encoded}) == KEY


@pytest.mark.parametrize("settings", [local, production])
def test_a_private_file(tmp_path: Path, settings):
    people = pseudonymizer(settings(tmp_path, salt_file=private(tmp_path, f"an older one of 2024\n{SALT}\n")), {})
    assert people.candidates("u1") == (sha256("u1" + SALT), sha256("u1" + "an older one of 2024"))
    file = private(tmp_path, base64.b64encode(KEY).decode() + "\n")
    assert quarantine_key(settings(tmp_path, quarantine_key_file=file), {}) == KEY


def test_salts_are_oldest_first_however_they_are_separated(tmp_path: Path):
    texts = [
        "salt number one..,salt number two..",
        " salt number one.. , salt number two.. ,",
        "salt number one..\nsalt number two..\n",
    ]
    for text in texts:
        people = pseudonymizer(production(tmp_path), {"REEL_SALT": text})
        assert people.candidates("u") == (sha256("usalt number two.."), sha256("usalt number one.."))


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o622, 0o601, 0o777])
@pytest.mark.parametrize("settings", [local, production])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, settings, mode: int):
    file = private(tmp_path, SALT, mode)
    with pytest.raises(
        SecretError, match=rf"privacy\.salt_file: {file} has mode {mode:04o}.*chmod 600 {file}"
    ) as failure:
        pseudonymizer(settings(tmp_path, salt_file=file), {})
    with pytest.raises(SecretError, match=r"privacy\.quarantine_key_file: "):
        quarantine_key(settings(tmp_path, quarantine_key_file=file), {})
    assert SALT not in str(failure.value)


def test_a_file_that_cannot_be_read(tmp_path: Path):
    for file in (tmp_path / "missing", private(tmp_path, "")):
        with pytest.raises(SecretError):
            pseudonymizer(local(tmp_path, salt_file=file), {})
    with pytest.raises(SecretError, match=r"privacy\.salt_file: .*missing cannot be read"):
        pseudonymizer(local(tmp_path, salt_file=tmp_path / "missing"), {})
    binary = private(tmp_path, "")
    binary.write_bytes(b"\xff\xfe\xfd" * 10)
    with pytest.raises(SecretError, match="cannot be read"):
        pseudonymizer(local(tmp_path, salt_file=binary), {})


@pytest.mark.parametrize("text", [" , \n ,", "\n", "tooshort", f"{SALT},tooshort"])
def test_a_salt_that_protects_nobody_is_refused_and_not_shown(tmp_path: Path, text: str):
    with pytest.raises(SecretError, match="16 characters or more") as failure:
        pseudonymizer(production(tmp_path), {"REEL_SALT": text})
    assert "tooshort" not in str(failure.value)
    assert SALT not in str(failure.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not base64!", "is not base64"),
        ("ünïcode", "is not base64"),
        (base64.b64encode(b"short").decode(), "must be 32 bytes; received 5"),
        (base64.b64encode(bytes(33)).decode(), "must be 32 bytes; received 33"),
    ],
)
def test_a_key_that_is_none_is_refused_and_not_shown(tmp_path: Path, text: str, message: str):
    with pytest.raises(SecretError, match=message) as failure:
        quarantine_key(production(tmp_path), {"REEL_QUARANTINE_KEY": text})
    assert text not in str(failure.value)
    assert "openssl rand -base64 32" in str(failure.value)


def test_a_laptop_gets_its_own_once(tmp_path: Path):
    settings = local(tmp_path)
    first, key = pseudonymizer(settings, {}), quarantine_key(settings, {})
    assert pseudonymizer(settings, {}).hash("u") == first.hash("u")
    assert quarantine_key(settings, {}) == key
    assert len(key) == 32
    for file in (tmp_path / "work").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(file.name for file in (tmp_path / "work").iterdir()) == ["quarantine.key", "salt"]
    other = local(tmp_path / "other")
    assert pseudonymizer(other, {}).hash("u") != first.hash("u")
    assert quarantine_key(other, {}) != key


def test_a_file_that_was_named_is_never_made(tmp_path: Path):
    with pytest.raises(SecretError):
        pseudonymizer(local(tmp_path, salt_file=tmp_path / "mine"), {})
    assert not (tmp_path / "mine").exists()


def both_secrets(work_dir: Path) -> tuple[str, bytes]:
    settings = Settings(work_dir=work_dir)
    return pseudonymizer(settings, {}).hash("u"), quarantine_key(settings, {})


def test_processes_that_make_them_at_once_agree(tmp_path: Path):
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(abs, range(4)))  # all of them are up
        for attempt in range(10):
            work_dir = tmp_path / str(attempt)
            assert len(set(pool.map(both_secrets, [work_dir] * 4))) == 1
            assert sorted(file.name for file in work_dir.iterdir()) == ["quarantine.key", "salt"]

"""Receipts: what an erasure did, signed, without telling who it was.

A receipt is a JSON file under `{work_dir}/privacy/receipts`, signed with Ed25519 (RFC 8032) over its canonical JSON;
the public key lies beside it, and whoever has that can check the receipt without Reel. It names the person by the mark
of the tombstone alone: whoever has the plain id and the tombstone key can tell whose it is. Everything in it is of this
person only, however many were erased in the same pass:

    tables           rows and the files that had them, of the newest snapshot; `older_snapshots`: whether older ones
                     held more. An interrupted erasure's are counted too: the tables' history tells
    training_sets    rows of each set, likewise by its manifest
    predictions      logged answers; those that an interrupted run had taken out before are not counted
    models           who learnt from the person, why that is known, and what to do
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from pipelines.errors import ReelError
from pipelines.privacy.from_tables import Told
from pipelines.privacy.models import Learnt
from pipelines.privacy.requests import ERASURES, Request
from pipelines.privacy.training_sets import SetTold
from pipelines.settings import Settings

FORMAT = 1
PUBLIC_KEY = "public_key.pem"
_STAYS = (
    "the tombstone: an HMAC under a key of its own, without which a replay of Kafka would bring the person back",
    "counts and aggregates over many viewers, which name nobody",
    "Kafka itself, for as long as its topics keep messages; none of the person's is let in any more",
)


class ReceiptError(ReelError):
    """A file is no receipt, or not as it was signed."""


@dataclass(frozen=True)
class Receipt:
    """What is said of one request."""

    content: Mapping[str, Any]

    @property
    def mark(self) -> str:
        """Whose: the mark of the tombstone."""
        return str(self.content["tombstone"])

    @property
    def is_known(self) -> bool:
        """Whether anything was held of the person."""
        return bool(self.content["held"])

    @property
    def rows(self) -> int:
        """Rows that were taken out, of tables, training sets and logged predictions."""
        parts = [*self.content["tables"].values(), *self.content["training_sets"]]
        return sum(int(one["rows"]) for one in parts) + int(self.content["predictions"])

    @classmethod
    def of(
        cls,
        request: Request,
        told: Sequence[Told],
        in_sets: Sequence[SetTold],
        predicted: int,
        learnt: Sequence[Learnt],
        settings: Settings,
    ) -> "Receipt":
        """By what tables and training sets tell of it, and how many logged answers were taken out."""
        tables, sets = of_tables(told, request.mark), of_sets(in_sets, request.mark)
        now = datetime.now(UTC)
        held = bool(tables or sets or predicted)
        return cls(
            {
                "format": FORMAT,
                "tombstone": request.mark,
                "asked_at": request.asked_at.isoformat(),
                "asked_by": request.asked_by,
                "finished_at": now.isoformat(),
                "held": held,
                "tables": tables,
                "training_sets": sets,
                "predictions": predicted,
                "models": [one.as_dict() for one in learnt],
                "stays": list(_STAYS) if held else [],
                "until": _until(settings, now) if held else {},
            }
        )

    def path(self, work_dir: Path) -> Path:
        """Where it lies; whoever asks again gets another one."""
        asked_at = datetime.fromisoformat(self.content["asked_at"])
        return folder_of(work_dir) / f"{self.mark}-{asked_at:%Y%m%dT%H%M%S}.json"

    def write(self, work_dir: Path, key: bytes) -> Path:
        """Sign it and write it, and the public key beside it; where it lies."""
        return write_signed(self.content, self.path(work_dir), key)


def folder_of(work_dir: Path) -> Path:
    """Where receipts lie."""
    return work_dir / "privacy" / "receipts"


def write_signed(content: Mapping[str, Any], path: Path, key: bytes) -> Path:
    """Sign what a receipt says and write it, and the public key beside it; where it lies."""
    private = Ed25519PrivateKey.from_private_bytes(key)
    signature = base64.b64encode(private.sign(_canonical(content))).decode()
    path.parent.mkdir(parents=True, exist_ok=True)
    pem = private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (path.parent / PUBLIC_KEY).write_bytes(pem)
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps({"receipt": content, "signature": signature}, indent=1, sort_keys=True))
    draft.replace(path)
    return path


def of_tables(told: Sequence[Told], mark: str) -> dict[str, dict[str, int | bool]]:
    """What tables tell of one request."""
    tables: dict[str, dict[str, int | bool]] = {}
    for one in told:
        if mark in one.by_mark and one.table != ERASURES:
            theirs = one.by_mark[mark]
            known = tables.setdefault(one.table, {"rows": 0, "files": 0, "of_files": 0, "older_snapshots": False})
            known["rows"] += theirs.rows
            known["files"] += theirs.files
            known["of_files"] = max(known["of_files"], one.of_files)
            known["older_snapshots"] |= len(theirs.held) > bool(theirs.rows)
    return tables


def of_sets(in_sets: Sequence[SetTold], mark: str) -> list[dict[str, str | int]]:
    """What manifests of training sets tell of one request."""
    return [{"training_set": one.folder.name, "rows": one.rows[mark]} for one in in_sets if mark in one.rows]


def checked(path: Path, public_key: Path | None = None) -> Receipt:
    """The receipt in a file, if it is as it was signed; by the key beside it unless another is named.

    Raises:
        ReceiptError: it is not, or is no receipt, or there is no key.
    """
    key_file = public_key or path.parent / PUBLIC_KEY
    try:
        signed = json.loads(path.read_text())
        content, signature = signed["receipt"], base64.b64decode(signed["signature"], validate=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReceiptError(f"{path} is no receipt ({error}); name a file of privacy/receipts") from None
    try:
        key = serialization.load_pem_public_key(key_file.read_bytes())
    except (OSError, ValueError) as error:
        raise ReceiptError(f"{key_file} is no public key ({error}); name one with --public-key") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ReceiptError(f"{key_file} is no Ed25519 key, with which receipts are signed; name one with --public-key")
    try:
        key.verify(signature, _canonical(content))
    except InvalidSignature:
        raise ReceiptError(
            f"{path} is not as it was signed, or was signed with another key than {key_file}; do not trust it"
        ) from None
    return Receipt(content)


def _canonical(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _until(settings: Settings, now: datetime) -> dict[str, str]:
    """What may still hold something of the person that nobody can find, and until when at the latest."""
    quarantine = now + timedelta(days=settings.lakehouse.quarantine_retention_days)
    unfinished = now + timedelta(hours=settings.lakehouse.orphan_age_hours)
    return {
        "messages in quarantine, sealed, which cannot be attributed to anybody": quarantine.isoformat(),
        "unfinished files of processes that were killed while they wrote": unfinished.isoformat(),
    }

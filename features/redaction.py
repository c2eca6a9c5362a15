"""Personal data in free text, replaced before anything is written (spec 8.3)."""

import re

import pyarrow as pa

# Each pattern is led by what it is replaced with. Order matters: an e-mail may hold digits, a card looks like a phone.
_PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("<email>", re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")),
    ("<iban>", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b")),
    ("<card>", re.compile(r"\b(?:\d[ -]?){12,18}\d\b")),
    (
        "<phone>",
        re.compile(r"(?<![\w.])(?:\+\d{1,3}[ .-]?)?(?:\(\d{1,4}\)[ .-]?)?\d{2,4}(?:[ .-]\d{2,4}){2,4}(?![\w.])"),
    ),
    ("<phone>", re.compile(r"(?<![\w.])\+\d{8,15}(?!\w)")),
)


def redact(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The texts with e-mail addresses, IBANs, card and phone numbers replaced by what they are; null stays null."""
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    encoded = texts.dictionary_encode()
    clean = pa.array([_redact_one(text) for text in encoded.dictionary.to_pylist()], pa.string())
    return clean.take(encoded.indices)


def _redact_one(text: str) -> str:
    for replacement, pattern in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text

"""Personal data in free text, replaced before anything is written (spec 8.3)."""

import re

import pyarrow as pa

# What each pattern finds is replaced by the text before it. Order matters: an e-mail may hold digits, a card or an
# address looks like a phone. No pattern may look twice at a long run of characters, or one long text stops the road.
_PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    # The @ may come from an address line, where it is written %40.
    ("<email>", re.compile(r"(?<![\w.+%-])[\w.+%-]+(?:@|%40)[\w-]+(?:\.[\w-]+)+")),
    # A field that says it is a name: `user_name=Jane`, `"fullName": "Jane Doe"`, `name: Jane Doe`.
    (
        r"\g<label><name>",
        re.compile(
            r"""(?P<label>(?<![\w-])
            (?:(?:first|last|middle|full|given|family|sur|nick|user|display|account|profile|customer|contact)[ _-]?)?
            name["']?\s{0,3}[:=]\s{0,3})
            (?!<name>)
            (?:"[^"]{1,100}" | '[^']{1,100}' | [^\s,;&"'{}]{1,100}(?:[ ](?-i:[A-Z])[\w'’-]{0,50}){0,3})""",
            re.IGNORECASE | re.VERBOSE,
        ),
    ),
    ("<iban>", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b")),
    ("<card>", re.compile(r"\b(?:\d{14,19}|\d{4}(?:[ -]\d{4}){3}(?:[ -]\d{1,3})?|\d{4}[ -]\d{6}[ -]\d{4,5})\b")),
    ("<ip>", re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d)")),
    (
        "<phone>",
        re.compile(
            r"""(?<![\w.+-]) (?!\d{4}-\d\d-\d\d(?!\d))  # inside no word, number or date
            (?: (?:\+|00)\d[\d ().-]{6,18}\d             # +44 7700 900123
              | \(\d{2,5}\)[ .-]?\d[\d .-]{4,11}\d       # (555) 123-4567
              | 0\d{1,4}[ .-]\d[\d .-]{3,10}\d           # 07700 900123
              | \d{2,4}(?:[ .-]\d{2,4}){2,4}             # 555-123-4567
            ) (?!\w)""",
            re.VERBOSE,
        ),
    ),
)


def redact(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The texts without personal data; null stays null.

    E-mail and IP addresses, IBANs, card and phone numbers, and fields that say they are a name, are replaced by what
    they were. A name that nothing marks as one cannot be told from other words.
    """
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    encoded = texts.dictionary_encode()
    clean = pa.array([_redact_one(text) for text in encoded.dictionary.to_pylist()], pa.string())
    return clean.take(encoded.indices)


def _redact_one(text: str) -> str:
    for replacement, pattern in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text

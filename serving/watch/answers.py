"""What an answer says of itself, read from its bytes: degraded, why, and which model.

Every answer of this service that holds less than was asked for says so in the same words (`degraded`, `reason`,
`reasons`, `model`, `model_version`). Reading them where the answer leaves means that no endpoint has to report
anything, and that what is counted is what callers were told. A caller's own text cannot pass for these words: inside a
JSON string its quotes are escaped.
"""

import re
from dataclasses import dataclass

_REASON = re.compile(rb'"reason":"([a-z_]{1,40})"')
_REASONS = re.compile(rb'"reasons":\[([a-z_",]*)\]')
_WORD = re.compile(rb'"([a-z_]{1,40})"')
_MODEL = re.compile(rb'"model":"([\w.\-]{1,100})"')
_VERSION = re.compile(rb'"model_version":"([\w.\-]{1,40})"')


@dataclass(frozen=True)
class Said:
    """What one answer said: reasons without repetition, in the order of the alphabet."""

    degraded: bool = False
    reasons: tuple[str, ...] = ()
    model: str = ""
    version: str = ""


def read(body: bytes) -> Said:
    """What a JSON answer says; `Said()` if it says nothing of the kind."""
    reasons = set(_REASON.findall(body))
    for words in _REASONS.findall(body):
        reasons.update(_WORD.findall(words))
    return Said(
        degraded=b'"degraded":true' in body,
        reasons=tuple(sorted(reason.decode() for reason in reasons)),
        model=_first(_MODEL, body),
        version=_first(_VERSION, body),
    )


def _first(pattern: re.Pattern[bytes], body: bytes) -> str:
    found = pattern.search(body)
    return "" if found is None else found[1].decode()

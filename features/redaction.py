"""Personal data in free text, replaced before anything is written (spec 8.3).

Most texts hold nothing that could be personal. One search over the whole column finds those that might, and only they
are looked at one by one: by shape first, then, where a number proves itself, by its check digits.
"""

import ipaddress
import re
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.distinct import codes_of, encoded

# Lengths of IBANs by country, from the IBAN registry (ISO 13616).
_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FI FK FO GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO EG GT HU LB NI PL SV",
        29: "BR PS QA UA",
        30: "JO KW MU",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for country in countries.split()
}
# First digits and lengths of the card networks' numbers (ISO/IEC 7812), so that a time in microseconds is no card.
_CARD_NUMBER = re.compile(
    r"""4\d{12}(?:\d{3}){0,2}                                            # Visa: 13, 16 or 19
      | (?:5[1-5]\d{2}|222[1-9]|22[3-9]\d|2[3-6]\d{2}|27[01]\d|2720)\d{12}  # Mastercard
      | 3[47]\d{13}                                                      # American Express
      | 3(?:0[0-5]|[689]\d)\d{11,13}                                     # Diners Club
      | (?:6011|64[4-9]\d|65\d{2}|622\d)\d{12,15}                        # Discover
      | (?:35\d{14}|(?:2131|1800)\d{11})                                 # JCB
      | (?:50\d{2}|5[6-8]\d{2}|6\d{3})\d{8,15}                           # Maestro
    """,
    re.VERBOSE,
)


def _card(found: re.Match[str]) -> str:
    """A short number behind a card's looks like its last group, so the card is also looked for without that."""
    for number in (found[0], re.sub(r"[ -]\d{1,3}$", "", found[0])):
        digits = re.sub(r"\D", "", number)
        if _CARD_NUMBER.fullmatch(digits) and _luhn(digits):
            return "<card>" + found[0][len(number) :]
    return found[0]


def _luhn(digits: str) -> bool:
    """The check digit of card numbers (ISO/IEC 7812-1, annex B)."""
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


def _iban(found: re.Match[str]) -> str:
    """Only as much of what was found as its country's numbers are long, and if its check digits hold (ISO 7064)."""
    wanted = _IBAN_LENGTHS.get(found[0][:2].upper(), 0)
    ends = [place for place, character in enumerate(found[0], 1) if character != " "]
    if not 0 < wanted <= len(ends):
        return found[0]
    end = ends[wanted - 1]
    number = found[0][:end].replace(" ", "").upper()
    if found[0][end : end + 1].isalnum() or int("".join(str(int(c, 36)) for c in number[4:] + number[:4])) % 97 != 1:
        return found[0]
    return "<iban>" + found[0][end:]


def _ip(found: re.Match[str]) -> str:
    try:
        ipaddress.ip_address(found[0])
    except ValueError:
        return found[0]
    return "<ip>"


_WHOSE = r"(?:first|last|middle|full|given|family|fore|sur|nick|user|display|account|profile|customer|contact)"
# What stands behind a key: a text in quotes, or all up to the next separator.
_VALUE = r"""(?:"[^"]{1,100}" | '[^']{1,100}' | [^\s,;&"'{}]{1,100})"""
# A key is followed by "=", or stands in quotes: `phone: broken` is a sentence.
_ASSIGNED = r"""(?:["']\s{0,3}[:=]|\s{0,3}=)\s{0,3}"""
_NO_DATA = r"""(?!["']?(?:<|(?:true|false|null|none|yes|no|[01])\b))"""
_NO_NUMBER_BEFORE = r"(?<![\w.+-]) (?<!\d:) (?!\d{4}-\d\d-\d\d(?!\d))"  # inside no word, number, time or date
_EXTENSION = r"(?:[ ]?x\d{1,6})? (?!\w)"

# What each pattern finds is replaced by the text before it. Order matters: an e-mail may hold digits, a card or an
# address looks like a phone. No pattern may look twice at a long run of characters, or one long text stops the road.
_PATTERNS: tuple[tuple[str | Callable[[re.Match[str]], str], re.Pattern[str]], ...] = (
    # The @ may come from an address line, where it is written %40.
    ("<email>", re.compile(r"(?<![\w.+%-])[\w.+%-]+(?:@|%40)[\w-]+(?:\.[\w-]+)+")),
    (
        r"\g<label><email>",
        re.compile(
            rf"""(?P<label>(?<![\w-]) (?:{_WHOSE}[ _-]?)? e-?mail(?:[ _-]?(?:address|id))? {_ASSIGNED})
            {_NO_DATA} {_VALUE}""",
            re.IGNORECASE | re.VERBOSE,
        ),
    ),
    # A field that says it is a name: `user_name=Jane`, `"fullName": "Jane Doe"`, `name: Jane Doe`.
    (
        r"\g<label><name>",
        re.compile(
            rf"""(?P<label>(?<![\w-]) (?:{_WHOSE}[ _-]?)? name["']?\s{{0,3}}[:=]\s{{0,3}}) (?!<name>)
            (?:"[^"]{{1,100}}" | '[^']{{1,100}}' | [^\s,;&"'{{}}]{{1,100}}(?:[ ](?-i:[A-Z])[\w'’-]{{0,50}}){{0,3}})""",
            re.IGNORECASE | re.VERBOSE,
        ),
    ),
    (_iban, re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b", re.IGNORECASE)),
    (_card, re.compile(r"(?<!\d\.)\b(?:\d{12,19}|\d{4}(?:[ -]\d{4}){3}(?:[ -]\d{1,3})?|\d{4}[ -]\d{6}[ -]\d{4,5})\b")),
    (_ip, re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d)")),
    (_ip, re.compile(r"(?<![\w:.])(?:[0-9a-f]{1,4}:){2,7}(?::|:?[0-9a-f]{1,4})(?::[0-9a-f]{1,4}){0,6}(?![\w:])", re.I)),
    (
        r"\g<label><phone>",
        re.compile(
            rf"""(?P<label>(?<![\w-]) (?:{_WHOSE}[ _-]?)? (?:phone|telephone|mobile|msisdn)(?:[ _-]?(?:number|no))?
            {_ASSIGNED}) {_NO_DATA} {_VALUE}""",
            re.IGNORECASE | re.VERBOSE,
        ),
    ),
    (
        r"\g<label><phone>",
        re.compile(  # a number that says what it is, without gaps or short as it may be: `Fax: 9498777106`
            r"""(?P<label>(?<![\w-]) (?:phone|telephone|tel|mobile|cell|fax|desk|call[ ]me[ ](?:at|on))
              (?:[ ](?:number|no\.?))?\s{0,3}[:#]?\s{0,3}) (?!\d{4}-\d\d-\d\d(?!\d))
              \+?\(?\d(?:[ ().-]{0,2}\d){6,14}(?:[ ]?x\d{1,6})?(?!\w)""",
            re.IGNORECASE | re.VERBOSE,
        ),
    ),
    # Numbers that begin as numbers do come first, so that nothing before them is taken for a part of one.
    (
        "<phone>",
        re.compile(
            rf"""{_NO_NUMBER_BEFORE}
            (?: (?:\+|00)\d[\d ().-]{{6,18}}\d             # +44 7700 900123
              | \(\d{{2,5}}\)[ .-]?\d[\d .-]{{4,11}}\d       # (555) 123-4567
              | 0\d{{1,4}}[ .-]\d[\d .-]{{3,10}}\d           # 07700 900123
            ) {_EXTENSION}""",
            re.VERBOSE,
        ),
    ),
    (
        "<phone>",
        re.compile(
            rf"""{_NO_NUMBER_BEFORE}
            (?: (?=\d(?:[ -]?\d){{6}})\d{{2,4}}(?:[ -]\d{{2,4}}){{2,4}}(?!\.\d)  # 555-123-4567, of 7 digits or more
              | \d{{3}}\.\d{{3}}\.\d{{4}} | \d\d(?:\.\d\d){{3,4}}      # 555.123.4567, but not version 10.15.70
              | [2-9]\d{{2,3}}[ ](?!19|20)\d{{4}}                  # 9472 7916, but not a title and its year
              | [1-9]\d[ ]\d{{6}}                                   # 99 668472
            ) {_EXTENSION}""",
            re.VERBOSE,
        ),
    ),
)
_WORD_END = re.compile(r"[^0-9A-Za-z]")
# In every text that any of the patterns would change: an @, seven digits close together, or a key that names a person.
_MAY_BE_PERSONAL = (
    r"(?i)@|%40|\d(?:[ ().-]{0,3}\d){6}|\b[a-z]{2}\d{2} ?[a-z0-9]{4}|(?:\d{1,3}\.){3}\d|[0-9a-f]:[0-9a-f:]*:[0-9a-f:]"
    r"|(?:name|mail|address|id|phone|mobile|msisdn|number|no)[\"']?\s{0,3}[:=]"
)


def redact(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The texts without personal data; null stays null.

    E-mail and IP addresses, IBANs, card and phone numbers, and fields that say they are a name, an e-mail address or a
    phone number, are replaced by what they were. A name that nothing marks as one cannot be told from other words.
    """
    column = encoded(texts)
    suspects = np.flatnonzero(pc.match_substring_regex(column.dictionary, _MAY_BE_PERSONAL))
    if not len(suspects):
        return column.cast(pa.string())
    values = column.dictionary.to_pylist()
    for place in suspects.tolist():
        values[place] = _redact_one(values[place])
    indices = codes_of(column)
    return pa.array(values, pa.string()).take(pa.array(indices, mask=indices < 0))


def _redact_one(text: str) -> str:
    for replacement, pattern in _PATTERNS:
        text = pattern.sub(replacement, text) if isinstance(replacement, str) else _proved(replacement, pattern, text)
    return text


def _proved(prove: Callable[[re.Match[str]], str], pattern: re.Pattern[str], text: str) -> str:
    """Replace what proves to be what it looks like; what does not may have begun one word too early, so look again."""
    parts, written, start = [], 0, 0
    while found := pattern.search(text, start):
        replaced = prove(found)
        if replaced != found[0]:
            parts += [text[written : found.start()], replaced]
            written = start = found.end()
            continue
        word_end = _WORD_END.search(found[0])
        start = found.start() + word_end.end() if word_end else found.end()
    return "".join([*parts, text[written:]])

"""Quarantine: what is sealed shows nothing, and comes back whole or not at all."""

import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import ReelError
from pipelines.kafka.message import Messages
from pipelines.lakehouse.tables import QUARANTINE
from pipelines.messages import SetAside
from pipelines.quarantine import BrokenSealError, opened, quarantine_rows, seal, unseal

KEY = bytes(range(32))
CIPHER = AESGCM(KEY)


def sent(*messages: tuple[bytes | None, bytes | None]) -> Messages:
    """Messages of these keys and values."""
    keys, values = zip(*messages, strict=True)
    return Messages.of_partition("t", 0, range(len(values)), keys, values)


@settings(deadline=None)
@given(plain=st.binary(max_size=200))
def test_what_is_sealed_comes_back(plain):
    sealed = seal(CIPHER, plain)
    assert unseal(AESGCM(KEY), sealed) == plain
    assert len(sealed) == 12 + len(plain) + 16  # nonce, ciphertext, tag: NIST SP 800-38D
    # The layout is AES-GCM's own: anyone with the key can open it without this module.
    assert AESGCM(KEY).decrypt(sealed[:12], sealed[12:], None) == plain


@settings(deadline=None)
@given(plain=st.binary(min_size=8, max_size=200))
def test_nothing_of_the_plain_bytes_is_in_the_sealed_ones(plain):
    sealed = seal(CIPHER, plain)
    assert not any(plain[start : start + 8] in sealed for start in range(len(plain) - 7))


def test_the_same_bytes_never_look_the_same_twice():
    sealed = {seal(CIPHER, b"usr_x1y2z3") for _ in range(1000)}
    assert len(sealed) == 1000
    assert len({one[:12] for one in sealed}) == 1000


@settings(deadline=None)
@given(plain=st.binary(max_size=40), place=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_a_changed_byte_is_refused(plain, place, flip):
    sealed = bytearray(seal(CIPHER, plain))
    sealed[place % len(sealed)] ^= flip
    with pytest.raises(BrokenSealError, match="REEL_QUARANTINE_KEY"):
        unseal(CIPHER, bytes(sealed))
    assert issubclass(BrokenSealError, ReelError)


@pytest.mark.parametrize("cut", [0, 1, 11, 12, 13, 27, 30])
def test_bytes_that_were_cut_short_are_refused(cut):
    with pytest.raises(BrokenSealError):
        unseal(CIPHER, seal(CIPHER, b"plain")[:cut])


def test_another_key_opens_nothing():
    with pytest.raises(BrokenSealError):
        unseal(AESGCM(bytes(32)), seal(CIPHER, b"plain"))


def test_rows_of_set_aside_messages():
    messages = sent(
        (b"prf_1", b"rubbish of usr_1"),
        (None, None),
        (b"", b""),
        (b"prf_3", b"\0\0\0\0\7body"),
    )
    set_aside = [SetAside(3, "unknown_schema_id", 7), SetAside(0, "not_wire_format", None), SetAside(1, "empty", None)]
    set_aside.append(SetAside(2, "empty", 2**31))  # no registry gives such an id, and the column cannot hold it
    rows = quarantine_rows(KEY, messages, set_aside)
    assert rows["reason"].to_pylist() == ["unknown_schema_id", "not_wire_format", "empty", "empty"]
    assert rows["schema_id"].to_pylist() == [7, None, None, None]
    opened = [unseal(CIPHER, sealed) for sealed in rows["encrypted_value"].to_pylist()]
    assert opened == [b"\0\0\0\0\7body", b"rubbish of usr_1", b"", b""]
    keys = [None if sealed is None else unseal(CIPHER, sealed) for sealed in rows["encrypted_key"].to_pylist()]
    assert keys == [b"prf_3", b"prf_1", None, b""]
    for name in rows.column_names:
        assert rows.schema.field(name).type == QUARANTINE.field(name).type
    everything = b"".join(
        part or b"" for name in ("encrypted_value", "encrypted_key") for part in rows[name].to_pylist()
    )
    assert b"usr_1" not in everything
    assert b"prf_1" not in everything


def stored(messages: Messages, key: bytes = KEY) -> pa.Table:
    """All of some messages as quarantine has them."""
    rows = quarantine_rows(key, messages, [SetAside(index, "truncated", None) for index in range(len(messages))])
    rows = rows.append_column("partition", pa.array(messages.partitions))
    return rows.append_column("offset", pa.array(messages.offsets))


def test_messages_are_opened_to_what_they_were():
    headers = [None, [], [("trace_id", b"4bf9"), ("trace_id", b"\xff\0"), ("empty", None)]]
    keys, values = [b"prf_1", None, b""], [b"rubbish of usr_1", b"", b"\0\0\0\0\7body"]
    messages = Messages.of_partition("t", 3, [5, 7, 8], keys, values, headers)
    again = opened(KEY, "t", stored(messages))
    assert (again.topic, again.partitions.tolist(), again.offsets.tolist()) == ("t", [3, 3, 3], [5, 7, 8])
    assert (again.keys, again.values, again.headers) == (keys, values, headers)


def test_what_was_set_aside_before_headers_were_kept_has_none():
    messages = Messages.of_partition("t", 0, [1], [b"k"], [b"v"], [[("trace_id", b"4bf9")]])
    assert opened(KEY, "t", stored(messages).drop_columns("encrypted_headers")).headers == [None]


def test_nothing_is_opened_with_another_key():
    with pytest.raises(BrokenSealError):
        opened(KEY, "t", stored(sent((b"k", b"v")), bytes(32)))


def test_nothing_set_aside():
    rows = quarantine_rows(KEY, sent((b"k", b"v")), [])
    assert rows.num_rows == 0
    assert rows.schema == quarantine_rows(KEY, sent((b"k", b"v")), [SetAside(0, "truncated", 7)]).schema

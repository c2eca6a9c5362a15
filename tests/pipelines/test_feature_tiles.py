"""Tiles are the same whether what is kept of many viewers is joined before it is cut or comes piece by piece."""

import numpy as np
import pyarrow as pa
import pytest

from features.crowds import CHILD, CHILD_KNOWN
from features.entities import entity as entity_of
from features.groups import GROUPS
from pipelines.feature_tables import Target
from pipelines.feature_tiles import CutTiles, JoinTiles, KeepTiles, together
from pipelines.packed import packed, unpacked
from tests.features.random_log import random_log

ROWS, PIECES, BUCKETS = 2_000, 7, 3
TARGETS = [Target(group, entity) for group in GROUPS for entity in group.entities]


def pieces_of(target: Target, *, children: bool) -> list[bytes]:
    """Of a log in parts; what is known of a person is in one of them."""
    rng = np.random.default_rng(11)
    log = random_log(rng, target.group.source, target.group.entities, ROWS)
    names = np.array(log[target.entity].fill_null("").to_pylist())
    is_personal = entity_of(target.entity).is_personal
    part = np.unique(names, return_inverse=True)[1] % PIECES if is_personal else rng.integers(PIECES, size=ROWS)
    if children:
        tokens = [f"child-{rng.integers(6)}" if rng.random() < 0.4 else None for _ in range(ROWS)]
        log = log.append_column(CHILD, pa.array(tokens, pa.string()))
        log = log.append_column(CHILD_KNOWN, log["event_timestamp"])
    keep = KeepTiles((target,))
    assert keep.names(target.group.source) == [target.entity]
    parts = [log.filter(pa.array(part == place)) for place in range(PIECES)]
    return [packed(kept) for one in parts for kept in keep(target.group.source, one)]


@pytest.mark.parametrize("children", [False, True], ids=["grown-ups", "children"])
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_joined_pieces_are_cut_to_the_same_tiles(target: Target, children: bool) -> None:
    pieces = pieces_of(target, children=children)
    cut = CutTiles(target.entity, BUCKETS)
    joined = JoinTiles((target,))(pieces)
    one_by_one, at_once = [list(cut(unpacked(piece))) for piece in pieces], list(cut(joined))
    rows = 0
    for bucket in range(BUCKETS):
        expected = together(target, [parts[bucket] for parts in one_by_one], least_viewers=2)
        found = together(target, [at_once[bucket]], least_viewers=2)
        assert found.tiles.equals(expected.tiles)
        assert found.left_out == expected.left_out
        rows += found.tiles.num_rows
    assert rows > 0
    kept = sum(unpacked(piece).tiles[target.name].num_rows for piece in pieces)
    if not entity_of(target.entity).is_personal:
        assert joined.tiles[target.name].num_rows < kept, "nothing merged"

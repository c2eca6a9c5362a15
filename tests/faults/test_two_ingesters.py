"""Two ingests of one backlog at the same time: each ends, and together they bring in everything once."""

import pytest

from tests.faults.road import PATIENCE_S, SEEDS, ended

pytestmark = [pytest.mark.kafka, pytest.mark.fault, pytest.mark.timeout(3600)]
ROUNDS = max(1, SEEDS // 5)


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_what_one_has_committed_the_other_does_not_commit_again(backlog, make_road, round_):
    road = make_road()
    with ended(road.start("ingest")) as one, ended(road.start("ingest")) as other:
        for run in (one, other):
            if run.wait(PATIENCE_S) != 0:
                assert "another run committed while this one worked" in road.refused(run)
    road.ingest_and_clean()
    assert road.differences(backlog.calm) == {}

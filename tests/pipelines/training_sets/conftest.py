"""One platform for the tests of training sets; `test_rebuild` adds to what it knows, and comes last."""

from collections.abc import Iterator

import pytest

from tests.platform import SALT, Platform


@pytest.fixture(scope="session")
def platform(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform whose features are built (`tests.pipelines.training_sets.world`)."""
    from tests.pipelines.training_sets.world import built  # the stations take seconds to import

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REEL_SALT", SALT)
        yield built(tmp_path_factory.mktemp("sets"))

"""One running service for all tests of what is seen of it; each leaves it as it was."""

import shutil
from collections.abc import Iterator

import pytest

from serving.online_store import open_online_store
from tests.serving import platform
from tests.serving.watch.watched import Watched, running


@pytest.fixture(scope="package")
def watched(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Two replicas, answering with their model."""
    # Another database than the store's own tests use.
    with open_online_store(f"{redis_url.removesuffix('/0')}/9") as store:
        platform.fill(store)
    with running(tmp_path_factory.mktemp("watched"), redis_url) as service:
        yield service
    shutil.rmtree(service.service.ray_folder, ignore_errors=True)

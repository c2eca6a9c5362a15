"""What the serving tests share: a real Redis, free ports."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from pipelines.processes import find_free_port


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now, and none that the system gives to outgoing connections."""
    return find_free_port()


@contextmanager
def running_redis(binary: str, folder: Path) -> Iterator[str]:
    """A Redis server that keeps nothing; its address."""
    port = free_port()
    arguments = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
    server = subprocess.Popen([binary, *arguments], stdout=subprocess.DEVNULL)
    url = f"redis://127.0.0.1:{port}/0"
    try:
        with redis.Redis.from_url(url) as client:
            deadline = time.monotonic() + 10
            while True:
                try:
                    client.ping()
                    break
                except redis.ConnectionError:
                    assert time.monotonic() < deadline, "redis-server did not start within 10 s"
                    time.sleep(0.05)
        yield url
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed, so the Redis backend was not tested")
    with running_redis(binary, tmp_path_factory.mktemp("redis")) as url:
        yield url

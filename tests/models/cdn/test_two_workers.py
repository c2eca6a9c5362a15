"""Two workers, each with half of the rows, grow the same trees, block after block, whatever becomes of their ports."""

import json
import multiprocessing
import socket
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from models.cdn.quality import QualityConfig
from models.cdn.training import QualityTraining
from models.task import Place
from models.training_set import read_manifest
from tests.models.cdn.planted import write_training_set

CONFIG = QualityConfig(epochs=6, patience=6)
ENDS_WITHIN_S = 120


def test_two_workers_stay_connected_from_block_to_block(tmp_path: Path) -> None:
    write_training_set(tmp_path / "set")
    ports = _free_ports(2)
    processes = [
        multiprocessing.get_context("spawn").Process(target=_train, args=(rank, ports, tmp_path)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(ENDS_WITHIN_S)
    assert [process.exitcode for process in processes] == [0, 0]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first["trees"] == second["trees"]
    train, validation = (pq.read_table(_split(tmp_path, name), partitioning=None) for name in ("train", "validation"))
    alone = QualityTraining(CONFIG, read_manifest(tmp_path / "set"), train, validation, Place(threads=1))
    while not alone.done:
        alone.epoch()
    assert first["validation_r2"] == pytest.approx([epoch["validation_r2"] for epoch in alone.curve], abs=0.02)


def _train(rank: int, ports: list[int], folder: Path) -> None:
    """One worker; after its first block somebody else takes its port, if it can be had."""
    network = {
        "machines": ",".join(f"127.0.0.1:{port}" for port in ports),
        "local_listen_port": ports[rank],
        "num_machines": len(ports),
    }
    train, validation = (pq.read_table(_split(folder, name), partitioning=None) for name in ("train", "validation"))
    place = Place(rank, len(ports), threads=1, network=network)
    training = QualityTraining(CONFIG, read_manifest(folder / "set"), train, validation, place)
    training.epoch()
    with socket.socket() as other:
        with suppress(OSError):  # it is still in use, which is as well
            other.bind(("127.0.0.1", ports[rank]))
            other.listen()
        while not training.done:
            training.epoch()
    curve = [epoch["validation_r2"] for epoch in training.curve]
    found = {"trees": training.state()["learnt"]["trees"], "validation_r2": curve}
    (folder / f"{rank}.json").write_text(json.dumps(found))


def _split(folder: Path, name: str) -> Path:
    return folder / "set" / f"split={name}" / "part-0.parquet"


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports

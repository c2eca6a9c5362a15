"""Serve.

input   the online store and the champion models
does    starts the service as a process of its own (`python -m serving`), configured from Reel's settings
output  HTTP under /v1; what models and look-ups of features answered, under work_dir (`serving/prediction_log.py`,
        `serving/feature_log.py`)
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from models.recommendation.task import TASK
from pipelines.errors import ReelError
from pipelines.lakehouse import lineage
from pipelines.secrets import pseudonymizer, token_secret, token_secret_file
from pipelines.settings import Settings
from pipelines.settings_serving import PredictionSettings, ServedFeatureSettings

STOP_TIMEOUT_S = 60


class ServiceDidNotStartError(ReelError):
    """The service ended before it answered."""


def serve(settings: Settings, *, port: int | None = None) -> int:
    """Run the service in the foreground until SIGTERM or SIGINT; its exit code."""
    with lineage.run(settings, "serve") as made:
        made.serves(TASK.purpose)
        service = subprocess.Popen(_command(settings, port))

        def pass_on(number: int, frame: FrameType | None) -> None:
            service.send_signal(number)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, pass_on)
        return service.wait()


@contextmanager
def serving(settings: Settings, *, port: int | None = None) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The service, answering, for the length of the block: its address and its process.

    Raises ServiceDidNotStartError with what the service said.
    """
    with lineage.run(settings, "serve") as made:
        made.serves(TASK.purpose)
        with _service(settings, port) as answering:
            yield answering


@contextmanager
def _service(settings: Settings, port: int | None) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = _command(settings, port)
    errors = settings.work_dir / "serving.log"  # a file, for nobody reads a pipe while the service runs
    with errors.open("w") as stderr:
        service = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True)
    try:
        assert service.stdout is not None
        line = service.stdout.readline()
        if not line:
            service.wait(STOP_TIMEOUT_S)
            raise ServiceDidNotStartError(f"the service did not start: {_last_line(errors.read_text())}; see {errors}")
        yield line.split()[3].rstrip(";"), service
    finally:
        service.terminate()
        try:
            service.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            service.kill()
            service.wait()
        if service.stdout is not None:
            service.stdout.close()


def _command(settings: Settings, port: int | None) -> list[str]:
    pseudonymizer(settings)  # makes the embedded salt where that is allowed, and refuses to start without one elsewhere
    salt_file = settings.privacy.salt_file or settings.work_dir / "salt"
    configuration = configured(settings) | {
        "salt_file": None if os.environ.get("REEL_SALT") else str(salt_file),
        "tokens": _tokens(settings) | _token_secret(settings),
        "port": port or settings.serving.port,
        "ray_address": settings.ray_address,
        "ray_num_cpus": settings.ray.num_cpus,
    }
    settings.work_dir.mkdir(parents=True, exist_ok=True)
    file: Path = settings.work_dir / "serving.json"
    file.write_text(json.dumps(configuration, indent=1))
    return [sys.executable, "-m", "serving", "--config", str(file)]


def configured(settings: Settings) -> dict[str, object]:
    """The service's configuration (`serving/settings.py`), wherever it runs; no secret is in it."""
    return {
        "online_store_url": settings.online_store_url,
        "mlflow_tracking_uri": settings.tracking_uri,
        "as_of": settings.serving.as_of,
        "tokens": _tokens(settings),
        "requests_per_s": settings.serving.requests_per_s,
        "host": settings.serving.host,
        "port": settings.serving.port,
        "grpc_port": settings.serving.grpc_port,
        "traces_url": settings.serving.traces_url,
        "log_requests": settings.serving.log_requests,
        "replicas": settings.serving.replicas,
        **models_of(settings),
    }


def models_of(settings: Settings) -> dict[str, object]:
    """How models are run and tried and what is logged, as the service's configuration has it."""
    chosen = settings.serving
    return {
        "model_refresh_s": chosen.model_refresh_s,
        "model_processes": chosen.model_processes,
        "model_replicas": chosen.model_replicas,
        "experiments": {name: one.model_dump() for name, one in chosen.experiments.items()},
        "predictions": _log_of(chosen.predictions, settings.predictions_folder),
        "served_features": _log_of(chosen.served_features, settings.served_features_folder),
        "churn_bands": chosen.churn_bands.model_dump(),
    }


def _log_of(log: PredictionSettings | ServedFeatureSettings, folder: Path) -> dict[str, object] | None:
    """A log of answers, as the service's configuration has it; None if nothing is logged."""
    if log.share == 0:
        return None
    return {"folder": str(folder), "share": log.share, "flush_s": log.flush_s, "most_waiting": log.most_waiting}


def _tokens(settings: Settings) -> dict[str, str | None]:
    """Whose tokens are accepted."""
    chosen = settings.serving.tokens
    told: dict[str, str | None] = {"audience": chosen.audience, "issuer": chosen.issuer}
    if chosen.jwks is not None:
        return {**told, "algorithm": "RS256", "jwks": chosen.jwks}
    return {**told, "algorithm": "HS256"}


def _token_secret(settings: Settings) -> dict[str, str | None]:
    """The file of the tokens' secret; makes the embedded one where that is allowed."""
    if settings.serving.tokens.jwks is not None:
        return {}
    token_secret(settings)
    return {"secret_file": None if os.environ.get("REEL_TOKEN_SECRET") else str(token_secret_file(settings))}


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"

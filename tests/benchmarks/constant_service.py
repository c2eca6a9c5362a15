"""The service with nothing behind it: `python -m serving`'s ingress and Serve settings, and a handler of one line.

python -m tests.benchmarks.constant_service --config FILE
"""

import argparse
from pathlib import Path

from fastapi import FastAPI
from ray import serve
from ray.serve import Application

from serving import app, service
from serving.settings import ServingSettings, load_settings


class Constant:
    """What Serve makes in each replica."""

    def __serve_build_asgi_app__(self) -> FastAPI:
        api = FastAPI()

        @api.get("/healthz")
        async def constant() -> dict[str, str]:
            return {"status": "ok"}

        return api


def build(settings: ServingSettings) -> Application:
    """As `serving.app.build` makes the ingress."""
    ingress = serve.deployment(
        name="ingress",
        num_replicas=settings.replicas,
        max_ongoing_requests=settings.max_in_flight + app.TURNED_AWAY_AT_ONCE,
        ray_actor_options={"num_cpus": 0.5},
    )
    return ingress(serve.ingress()(Constant)).bind()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    app.build = build
    service.run(load_settings(parser.parse_args().config))

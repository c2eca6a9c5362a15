"""The service as `serve deploy` and KubeRay start it: the file they read, and the builder that this file names.

The file is made from the settings (`python -m serving --config FILE.json --deployment`), so that there is one
application, whoever starts it. It holds no secret. What differs from one cluster to another comes from the environment
of the nodes that the application runs on: `ADDRESSES`, and the secrets REEL_SALT and REEL_TOKEN_SECRET.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ray.serve import Application

from serving.access import check_access
from serving.app import GRPC_SERVICER, NAME, build, deployments
from serving.errors import ConfigurationError
from serving.settings import ServingSettings, parse_settings, read_salts

ADDRESSES: Mapping[str, tuple[str, ...]] = {
    "REEL_ONLINE_STORE_URL": ("online_store_url",),
    "REEL_MLFLOW_TRACKING_URI": ("mlflow_tracking_uri",),
    "REEL_SERVING_TOKENS_JWKS": ("tokens", "jwks"),
    "REEL_SERVING_TOKENS_ISSUER": ("tokens", "issuer"),
    "REEL_SERVING_TOKENS_AUDIENCE": ("tokens", "audience"),
    "REEL_SERVING_TRACES_URL": ("traces_url",),
}
"""Variables that the other stations read too, and which of the application's arguments each is."""
WORK_DIR = "REEL_WORK_DIR"
"""Under which predictions are logged, where they are."""
LOGGING: dict[str, Any] = {"log_level": "WARNING", "enable_access_log": False}
"""Of Serve itself; what the application says, `serving.watch.log` writes."""
# Of one machine, of `python -m serving`, or said elsewhere in the file; and the secrets' files.
_NOT_ARGUMENTS = {
    *("host", "port", "grpc_port", "ingress", "syslog", "drain_s", "ray_address", "ray_num_cpus"),
    *("replicas", "model_replicas", "salt_file"),
}


def application(arguments: Mapping[str, Any]) -> Application:
    """The application, of the `args` of a Serve config and the environment.

    Raises ConfigurationError if one of them is wrong, a secret is missing, or no tokens are asked for.
    """
    settings = parse_settings(with_addresses(arguments, os.environ), "args of the application")
    if settings.tokens is None:
        raise ConfigurationError("args of the application: tokens are missing; whoever reaches the cluster could ask")
    check_access(settings)
    read_salts(settings)
    return build(settings)


def with_addresses(arguments: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """The arguments, with what the environment says of addresses instead of theirs."""
    told: dict[str, Any] = {name: dict(one) if isinstance(one, Mapping) else one for name, one in arguments.items()}
    for variable, (*sections, key) in ADDRESSES.items():
        node: Any = told
        for section in sections:
            node = node.get(section)
        if variable in environ and isinstance(node, dict):
            node[key] = environ[variable]
    if WORK_DIR in environ and isinstance(told.get("predictions"), dict):
        told["predictions"]["folder"] = str(Path(environ[WORK_DIR]) / "predictions")
    return told


def serve_config(settings: ServingSettings) -> dict[str, Any]:
    """What `serve deploy` reads, and `serveConfigV2` of a RayService holds.

    Raises ConfigurationError if an address holds a password, or no tokens are asked for.
    """
    if settings.tokens is None:
        raise ConfigurationError("a service that others can reach asks for tokens; configure them")
    arguments = settings.model_dump(mode="json", exclude=_NOT_ARGUMENTS, exclude_none=True)
    arguments["tokens"].pop("secret_file", None)
    for variable, (first, *_) in ADDRESSES.items():
        address = arguments.get(first)
        if isinstance(address, str) and urlsplit(address).password is not None:
            raise ConfigurationError(f"{first} holds a password, which goes into no file; give {variable} to the nodes")
    config: dict[str, Any] = {
        "proxy_location": "EveryNode",
        "http_options": http_options(settings.host, settings.port),
        "grpc_options": grpc_options(settings.grpc_port),
        "logging_config": {**LOGGING},
        "applications": [
            {
                "name": NAME,
                "route_prefix": "/",
                "import_path": f"{__name__}:{application.__name__}",
                "args": arguments,
                "deployments": [{"name": name, **options} for name, options in deployments(settings).items()],
                "logging_config": {**LOGGING},
            }
        ],
    }
    return {name: value for name, value in config.items() if value is not None}


def http_options(host: str, port: int) -> dict[str, Any]:
    """Where Serve listens for HTTP."""
    return {"host": host, "port": port}


def grpc_options(port: int | None) -> dict[str, Any] | None:
    """Where it listens for gRPC, and to what; None: nowhere."""
    return None if port is None else {"port": port, "grpc_servicer_functions": [GRPC_SERVICER]}

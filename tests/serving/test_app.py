"""Which processes the application is made of."""

import pytest
from ray.serve._private.build_app import build_app

from serving.app import build
from serving.settings import MODELS, ServingSettings

ADDRESSES = {"online_store_url": "lmdb:///nowhere", "mlflow_tracking_uri": "sqlite:////nowhere"}


@pytest.mark.parametrize(
    ("chosen", "replicas"),
    [
        ({}, {"ingress": 1, "models": 1}),
        (
            {"model_processes": "each", "model_replicas": 2, "replicas": 3},
            {
                **{"ingress": 3, "model_cascade": 2, "model_recommendation": 2, "model_churn": 2, "model_anomaly": 2},
                "model_cdn": 1,
            },
        ),
        ({"models": ("churn",), "model_processes": "each"}, {"ingress": 1, "model_churn": 1}),
    ],
)
def test_models_share_a_process_or_have_their_own(chosen: dict[str, object], replicas: dict[str, int]) -> None:
    settings = ServingSettings.model_validate(ADDRESSES | chosen)
    built = build_app(build(settings), name="reel")
    assert {one.name: one.num_replicas for one in built.deployments} == replicas
    assert built.ingress_deployment_name == "ingress"
    ingress = next(one for one in built.deployments if one.name == "ingress")
    handles = ingress.init_args[1]
    by_model = {model: handle.deployment_name for model, handle in handles.items()}
    expected = {model: f"model_{model}" for model in settings.models}
    assert by_model == (expected if settings.model_processes == "each" else dict.fromkeys(MODELS, "models"))

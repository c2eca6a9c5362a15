"""The way from the ingress to the processes that run models."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from serving.errors import ModelSlowError, ModelUnavailableError, NoVersionError
from serving.hosting.questions import Answered, Arm, Asked, Standing
from serving.watch import deadline, trace


class ModelClient:
    """Asks models, each at the deployment that runs it."""

    def __init__(self, handles: "Mapping[str, DeploymentHandle[Any]]") -> None:
        self._handles = handles

    @property
    def models(self) -> tuple[str, ...]:
        """The models that are run at all."""
        return tuple(self._handles)

    async def ask(self, model: str, arm: Arm, question: Any, timeout_s: float) -> Answered:
        """Raises ModelSlowError after `timeout_s`, NoVersionError if none is published, else ModelUnavailableError."""
        answer = await self._called(self._handle(model).ask.remote(Asked(model, arm, question)), timeout_s)
        if not isinstance(answer, Answered):
            raise (ModelUnavailableError if answer.is_published else NoVersionError)(answer.problem)
        return answer

    async def standing(self, timeout_s: float) -> list[Standing]:
        """What is loaded, by model; a process that does not answer is a problem of its models."""
        together: dict[str, list[str]] = {}
        for model, handle in self._handles.items():
            together.setdefault(handle.deployment_name, []).append(model)
        found: dict[str, Standing] = {}
        for models in together.values():
            try:
                said = await self._called(self._handles[models[0]].standing.remote(), timeout_s)
                found |= {one.model: one for one in said}
            except ModelUnavailableError:
                problem: dict[Arm, str] = {"champion": "the process that runs it does not answer now"}
                found |= {model: Standing(model, [], problem) for model in models}
        return [found[model] for model in self._handles]

    async def degraded(self, networks: Sequence[str], region: str, timeout_s: float) -> list[bool]:
        """Of each delivery network whether it is worse in the region than is usual. Raises as `ask` does."""
        said: list[bool] = await self._called(self._handle("cdn").degraded.remote(networks, region), timeout_s)
        return said

    async def ended(self, sessions: Sequence[tuple[str, str, float]], timeout_s: float) -> None:
        """Sessions that ended: (network, region, score). Raises as `ask` does."""
        await self._called(self._handle("cdn").ended.remote(sessions), timeout_s)

    def _handle(self, model: str) -> Any:
        if model not in self._handles:
            raise NoVersionError(f"{model} is not among the models that this service runs")
        return self._handles[model]

    async def _called(self, call: Any, timeout_s: float) -> Any:
        timeout_s = deadline.shortened(timeout_s)
        try:
            with trace.span("model"):
                async with asyncio.timeout(timeout_s):
                    return await call
        except TimeoutError:
            raise ModelSlowError(f"the model took more than {timeout_s * 1000:.0f} ms") from None
        except BackPressureError:
            raise ModelSlowError("the model's process has more requests waiting than it may have") from None
        except (RayError, RayServeException) as error:
            raise ModelUnavailableError(f"the model's process failed: {error}") from None

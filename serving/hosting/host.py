"""The process that runs models: a Serve deployment beside the ingress.

A deployment of its own, not a thread of the ingress, so that torch takes neither the ingress's memory nor its
interpreter lock, scales (or moves to a GPU) by itself, and feature look-ups go on while a model is loaded. Requests
that arrive while one batch is computed make up the next, so that nobody waits for a batch to fill.
"""

import asyncio
import logging
import threading
from collections.abc import Sequence
from typing import Any, get_args

from ray import serve

from models.cdn.degradation import Watches
from serving import garbage
from serving.hosting.followed import FollowedModel
from serving.hosting.questions import Answered, Arm, Asked, ServedVersion, Standing, Unavailable
from serving.hosting.registry import Registry
from serving.hosting.servables import LOADERS, ServedCascade
from serving.hosting.title_numbers import TitleNumbers
from serving.settings import ServingSettings
from serving.watch import log

MAX_BATCH = 64
MOST_WATCHED = 10_000
"""Networks times regions, of those that callers name."""

_log = logging.getLogger(__name__)


class ModelHost:
    """Some models, followed from a thread; and the delivery networks' watches, which are no model's version."""

    def __init__(self, settings: ServingSettings, models: Sequence[str]) -> None:
        log.install()
        registry = Registry(settings.mlflow_tracking_uri)
        challenged = {one.model for one in settings.experiments.values()}
        self._followed: dict[tuple[str, Arm], FollowedModel] = {}
        for model in models:
            self._followed[model, "champion"] = FollowedModel(registry, model, "champion", LOADERS[model])
            if model in challenged:
                self._followed[model, "challenger"] = FollowedModel(registry, model, "challenger", LOADERS[model])
        self._watches = Watches()
        self._titles: dict[Arm, TitleNumbers] = {arm: TitleNumbers(settings) for arm in get_args(Arm)}
        self._refresh_s = settings.model_refresh_s
        self._refresh()
        garbage.keep_all()
        threading.Thread(target=self._follow, name="models", daemon=True).start()

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=0)
    async def ask(self, asked: list[Asked]) -> list[Answered | Unavailable]:
        """One answer a question; those to the same version are one batch of it."""
        together: dict[tuple[str, Arm], list[int]] = {}
        for place, one in enumerate(asked):
            together.setdefault((one.model, one.arm), []).append(place)
        answers: list[Answered | Unavailable] = [Unavailable("not asked")] * len(asked)
        for (model, arm), places in together.items():
            questions = [asked[place].question for place in places]
            for place, answer in zip(
                places, await asyncio.to_thread(self._answers, model, arm, questions), strict=True
            ):
                answers[place] = answer
        return answers

    async def standing(self) -> list[Standing]:
        """What is loaded, by model."""
        found: dict[str, tuple[list[ServedVersion], dict[Arm, str]]] = {}
        for (model, alias), followed in self._followed.items():
            versions, problems = found.setdefault(model, ([], {}))
            if followed.loaded is not None:
                versions.append(followed.loaded.served)
            if followed.problem is not None:
                problems[alias] = followed.problem
        return [Standing(model, versions, problems) for model, (versions, problems) in found.items()]

    async def ended(self, sessions: Sequence[tuple[str, str, float]]) -> None:
        """Sessions that ended: (network, region, score). They tell when a network gets worse."""
        for network, region, score in sessions:
            if (network, region) in self._watches.by_key or len(self._watches.by_key) < MOST_WATCHED:
                self._watches.update(network, region, score)

    async def degraded(self, networks: Sequence[str], region: str) -> list[bool]:
        """Of each network whether it is worse in the region than is usual."""
        return [self._watches.degraded(network, region) for network in networks]

    def _answers(self, model: str, arm: Arm, questions: Sequence[Any]) -> Sequence[Answered | Unavailable]:
        champion, challenger = self._followed[model, "champion"], self._followed.get((model, "challenger"))
        loaded = challenger.loaded if arm == "challenger" and challenger is not None else None
        loaded = loaded or champion.loaded
        if loaded is None:
            return [Unavailable(champion.problem or "not loaded", champion.is_published)] * len(questions)
        try:
            answers = loaded.servable.answer(questions)
        except Exception:  # noqa: BLE001 - one model's failure is not another's: its questions are answered without it
            _log.exception("%s %s failed", model, loaded.served.version)
            return [Unavailable(f"version {loaded.served.version} failed")] * len(questions)
        served = loaded.served
        return [Answered(answer, served.version, served.alias, served.parts) for answer in answers]

    def _refresh(self) -> None:
        for one in self._followed.values():
            one.refresh()
            if one.loaded is not None and isinstance(one.loaded.servable, ServedCascade):
                self._titles[one.alias].bring_to(one.loaded.servable)

    def _follow(self) -> None:
        pause = threading.Event()
        while not pause.wait(self._refresh_s):
            try:
                self._refresh()
            except Exception:  # noqa: BLE001 - whatever it was, the next look at the aliases may succeed
                _log.exception("models not refreshed")

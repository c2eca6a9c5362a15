"""What the cascade's ranker is told of titles, as of now.

A cascade is assembled with the numbers of that hour. Which titles are candidates is known only where it answers, so
there the numbers of all that it offers are read from the online store, and read again when they are older than
`popular_refresh_s`. While the store cannot be read, those that are known stay.
"""

import logging
import time
from collections.abc import Mapping, Sequence

from features.groups import GROUPS
from features.selection import select
from models.ranker.features import TITLE_FEATURES
from serving import feature_values as online
from serving.errors import StoreUnavailableError
from serving.hosting.servables import ServedCascade
from serving.online_store import OnlineStore, open_online_store
from serving.settings import ServingSettings
from serving.store_reader import read_as_of_ms

SELECTIONS = tuple(select(TITLE_FEATURES, ("content_id",), GROUPS))
# What is stored is of whole groups, and is read by whole declarations.
_DECLARED = tuple(next(group for group in GROUPS if group.name == one.group.name) for one in SELECTIONS)

_log = logging.getLogger(__name__)


class TitleNumbers:
    """Brings cascades up to date; for one thread."""

    def __init__(self, settings: ServingSettings) -> None:
        self._settings = settings
        self._told: tuple[ServedCascade, float] | None = None

    def bring_to(self, served: ServedCascade) -> None:
        """Tell the cascade what is new, unless it was told lately."""
        if self._told is not None and self._told[0] is served and self._is_fresh(self._told[1]):
            return
        now_s = time.monotonic()
        try:
            # A connection of its own, with time enough: nobody waits for it.
            with open_online_store(self._settings.online_store_url, readonly=True) as store:
                served.learn(self.read(store, list(served.cascade.catalogue.offers)))
        except StoreUnavailableError as error:
            _log.warning("what is known of titles stays as it was: %s", error)
        self._told = (served, now_s)

    def read(self, store: OnlineStore, content_ids: Sequence[str]) -> dict[str, Mapping[str, float]]:
        """What is known of titles, by the ranker's columns. Raises StoreUnavailableError."""
        as_of_ms = read_as_of_ms(store, self._settings.as_of)
        if as_of_ms is None:
            return {}
        found: dict[str, dict[str, float]] = {}
        for selection, group in zip(SELECTIONS, _DECLARED, strict=True):
            packed = store.get_many(group.stored_as("content_id"), content_ids)
            columns = online.columns(group, packed, as_of_ms).columns
            for feature in selection.group.features:
                column = selection.columns[feature.name]
                for content_id, value in zip(content_ids, columns[feature.name], strict=True):
                    if value is not None:
                        found.setdefault(content_id, {})[column] = float(value)
        return dict(found)

    def _is_fresh(self, told_s: float) -> bool:
        return time.monotonic() - told_s < self._settings.popular_refresh_s

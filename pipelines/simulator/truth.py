"""The truth about a simulated platform: what models are compared with, and counts that a pipeline must come to.

Files: `viewers.parquet`, `titles.parquet` (as built), `tastes.parquet` (viewer x day), `hazards.parquet` (household x
day), `cdn_effects.parquet` (CDN x region x hour), `anomalies.json`, `config.json`, `expected.json` (only once all
events have been produced).
"""

import json
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.event_batch import TIMESTAMP, RubbishMessage
from pipelines.simulator.accounts import ANALYTICS, CANCEL_REASONS, NEVER, HazardDay
from pipelines.simulator.catalogue import GENRES, RATINGS
from pipelines.simulator.columns import Columns
from pipelines.simulator.config import DAY_MS, HOUR_MS
from pipelines.simulator.mischief import ORIGINAL, RESENT, RUBBISH_KINDS, WITHOUT_SESSION
from pipelines.simulator.network import CDNS, ROUTING_SHARES, Quality
from pipelines.simulator.platform import Platform
from pipelines.simulator.state import taste_shares
from pipelines.simulator.tables import SERVER_EVENTS

ALWAYS_KEPT = ("title.added", "profile.updated", "consent.changed", "auth.login_succeeded")
"""Events that need no analytics consent: catalogue events carry no person, the others are essential."""


class Ledger:
    """Counts of everything produced, per event name and per kind of rubbish."""

    def __init__(self, platform: Platform) -> None:
        self._viewers = platform.viewers
        self._events: dict[str, Counter[str]] = {}
        self._rubbish = Counter(dict.fromkeys(RUBBISH_KINDS, 0))

    def count(self, name: str, columns: Columns) -> None:
        """Count events; `viewer`, `consent`, `copy` and `late` are read."""
        original, resent = columns["copy"] == ORIGINAL, columns["copy"] == RESENT
        refused = (
            (columns["consent"] & ANALYTICS == 0) if name not in ALWAYS_KEPT else np.zeros(len(original), dtype=bool)
        )
        is_client = name not in SERVER_EVENTS
        kids = self._viewers.is_kids[columns["viewer"]] & is_client
        wrong_clock = (self._viewers.clock_error_ms[columns["viewer"]] != 0) & is_client
        self._events.setdefault(name, Counter()).update(
            {
                "distinct": int(original.sum()),
                "resent": int(resent.sum()),
                "without_session": int((columns["copy"] == WITHOUT_SESSION).sum()),
                "late": int((original & columns["late"]).sum()),
                "wrong_clock": int((original & wrong_clock).sum()),
                "kids": int((original & kids).sum()),
                "refused_distinct": int((original & refused).sum()),
                "refused_resent": int((resent & refused).sum()),
            }
        )

    def count_rubbish(self, messages: list[RubbishMessage]) -> None:
        """Count messages that are no events."""
        self._rubbish.update(message.kind for message in messages)

    def to_json(self) -> dict[str, object]:
        """Counts per event name, per kind of rubbish, and what a pipeline must arrive at, `expected`.

        Per name: `distinct` valid events; `resent` copies of them; `without_session`: more events, invalid for lack of
        a session id; of the distinct ones, those `late`, with a `wrong_clock`, of `kids`; `refused_distinct` and
        `refused_resent`: those of people who do not allow analytics, which must be dropped.
        """
        total = sum(self._events.values(), Counter())
        events = {
            name: {key: counts[key] for key in counts} | {"kept": counts["distinct"] - counts["refused_distinct"]}
            for name, counts in sorted(self._events.items())
        }
        rubbish = sum(self._rubbish.values())
        return {
            "events": events,
            "rubbish": dict(self._rubbish) | {"without_session": total["without_session"]},
            "expected": {
                "messages": total["distinct"] + total["resent"] + total["without_session"] + rubbish,
                "quarantined": total["without_session"] + rubbish,
                "dropped_without_consent": total["refused_distinct"] + total["refused_resent"],
                "duplicates": total["resent"] - total["refused_resent"],
                "kept_distinct": total["distinct"] - total["refused_distinct"],
            },
        }


class TruthWriter:
    """Writes the truth day by day, so that memory does not grow with the days; a context manager."""

    def __init__(self, folder: Path, platform: Platform) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "expected.json").unlink(missing_ok=True)
        self._folder, self._platform = folder, platform
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._write_json("config", platform.config.to_json())
        self._write_json("anomalies", [anomaly.to_json() for anomaly in platform.network.anomalies])
        self._append("viewers", _viewers(platform))
        self._append("titles", _titles(platform))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for writer in self._writers.values():
            writer.close()

    def day(self, day: int, tastes: np.ndarray, hazards: HazardDay, quality: Quality) -> None:
        """Append one day's tastes (logits), hazards and CDN effects."""
        self._append("tastes", self._tastes(day, tastes))
        self._append("hazards", self._hazards(day, hazards))
        self._append("cdn_effects", self._cdn_effects(day, quality))

    def finish(self, ledger: Ledger) -> None:
        """Write the counts; the last thing, when all events have been produced."""
        self._write_json("expected", ledger.to_json())

    def _write_json(self, name: str, content: object) -> None:
        (self._folder / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")

    def _append(self, name: str, table: pa.Table) -> None:
        if name not in self._writers:
            self._writers[name] = pq.ParquetWriter(self._folder / f"{name}.parquet", table.schema, compression="zstd")
        self._writers[name].write_table(table)

    def _tastes(self, day: int, logits: np.ndarray) -> pa.Table:
        shares = taste_shares(logits).astype(np.float32)
        return pa.table(
            {
                "day": pa.repeat(pa.scalar(day, pa.int32()), len(shares)),
                "profile_id": self._platform.viewers.profile_ids,
                "taste_shares": pa.FixedSizeListArray.from_arrays(pa.array(shares.ravel()), len(GENRES)),
            }
        )

    def _hazards(self, day: int, hazards: HazardDay) -> pa.Table:
        stays = hazards.cancel_ms == NEVER
        return pa.table(
            {
                "day": pa.repeat(pa.scalar(day, pa.int32()), len(stays)),
                "user_id": self._platform.households.user_ids,
                "active": hazards.active,
                "hazard": hazards.hazard,
                "engagement_hours": hazards.engagement_hours,
                "stall_percent": hazards.stall_percent,
                "cancelled_at": pa.array(hazards.cancel_ms, TIMESTAMP, mask=stays),
                "cancel_reason": pa.array(CANCEL_REASONS).take(pa.array(hazards.reason, mask=stays)),
            }
        )

    def _cdn_effects(self, day: int, quality: Quality) -> pa.Table:
        regions = len(self._platform.markets)
        cdn, region, hour = (axis.ravel() for axis in np.indices((len(CDNS), regions, DAY_MS // HOUR_MS)))
        return pa.table(
            {
                "hour": pa.array(self._platform.config.start_ms + day * DAY_MS + hour * HOUR_MS, TIMESTAMP),
                "cdn": pa.array(CDNS).take(pa.array(cdn)),
                "region": pa.array(self._platform.markets).take(pa.array(region)),
                "stalls_per_hour": quality.stalls_per_hour[cdn, region, hour],
                "throughput_kbps": quality.throughput_kbps[cdn, region, hour],
                "start_ms": quality.start_ms[cdn, region, hour],
                "routing_share": ROUTING_SHARES[cdn],
            }
        )


def _viewers(platform: Platform) -> pa.Table:
    viewers = platform.viewers
    return pa.table(
        {
            "profile_id": viewers.profile_ids,
            "user_id": pa.array(platform.households.user_ids).take(pa.array(viewers.household)),
            "market": pa.array(platform.markets).take(pa.array(platform.viewer_market)),
            "is_kids": viewers.is_kids,
            "sessions_per_day": viewers.sessions_per_day,
            "live_share": viewers.live_share,
            "impatience": viewers.impatience,
            "clock_error_ms": viewers.clock_error_ms,
            "initial_tastes": pa.FixedSizeListArray.from_arrays(pa.array(viewers.tastes.ravel()), len(GENRES)),
        }
    )


def _titles(platform: Platform) -> pa.Table:
    catalogue = platform.catalogue
    return pa.table(
        {
            "content_id": catalogue.content_ids,
            "appeal": catalogue.appeal,
            "genre_shares": pa.FixedSizeListArray.from_arrays(pa.array(catalogue.genre_shares.ravel()), len(GENRES)),
            "maturity_rating": pa.array(RATINGS).take(pa.array(catalogue.rating)),
            "series": pa.array(catalogue.series, mask=catalogue.series < 0),
            "next_content_id": pa.array(catalogue.content_ids).take(
                pa.array(catalogue.next_episode, mask=catalogue.next_episode < 0)
            ),
        }
    )

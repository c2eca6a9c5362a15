"""Running a platform: day after day, from behaviour to the batches of events that the server received."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.event_batch import EventBatch, RubbishMessage
from pipelines.simulator.accounts import NEVER, Accounts, ConsentDay, HazardDay
from pipelines.simulator.behaviour import DayActivity, live_through
from pipelines.simulator.columns import Columns, concatenate, length, take
from pipelines.simulator.config import DAY_MS, HOUR_MS, SimulationConfig
from pipelines.simulator.events import client_events
from pipelines.simulator.mischief import ORIGINAL, RESENT, deliver, make_rubbish, post_sessions
from pipelines.simulator.platform import Platform, build_platform
from pipelines.simulator.signals import account_signals, client_signals, consent_at
from pipelines.simulator.state import ViewerState
from pipelines.simulator.streams import stream
from pipelines.simulator.tables import TableMaker
from pipelines.simulator.truth import Ledger, TruthWriter


def simulate(config: SimulationConfig, truth_folder: Path | None = None) -> Iterator[EventBatch]:
    """Yield all events of a simulated platform in the order of their receipt, `batch_hours` at a time.

    The first batch also brings the catalogue (`title.added`) and, before anybody's first event, `profile.updated` and
    `consent.changed` for every viewer; the last one what arrives after the last day. With a `truth_folder` the truth is
    written there along the way, and its `expected.json` at the end. Memory is bounded by one day's events.
    """
    platform = build_platform(config)
    run = _Run(platform)
    with ExitStack() as stack:
        truth = stack.enter_context(TruthWriter(Path(truth_folder), platform)) if truth_folder else None
        for day in range(config.days):
            yield from run.day(day, truth)
        yield run.rest()
        if truth:
            truth.finish(run.ledger)


@dataclass
class _Run:
    """The state that goes from one day to the next."""

    platform: Platform
    ledger: Ledger = field(init=False)
    _accounts: Accounts = field(init=False)
    _state: ViewerState = field(init=False)
    _tables: TableMaker = field(init=False)
    _pending: dict[str, Columns] = field(default_factory=dict)
    _sessions: int = 0
    _playbacks: int = 0
    _numbers: int = 0

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.platform)
        self._accounts = Accounts.at_start(self.platform)
        self._state = ViewerState.at_start(self.platform)
        self._tables = TableMaker(self.platform)
        self._introduce()

    def day(self, day: int, truth: TruthWriter | None) -> Iterator[EventBatch]:
        """Live through a day, and yield what was received in each of its slices."""
        config, seed = self.platform.config, self.platform.config.seed
        midnight_ms = config.start_ms + day * DAY_MS
        self._state.drift(config.taste_drift, stream(seed, "drift", day))
        consent = self._accounts.change_consent(day, stream(seed, "consent", day))
        quality = self.platform.network.quality(day)
        eagerness = self._accounts.eagerness()
        activity = live_through(
            self.platform, self._state, quality, day, eagerness, self._sessions, stream(seed, "behaviour", day)
        )
        hazards = self._accounts.judge(day, activity, stream(seed, "cancellation", day))
        self._add("consent.changed", self._consent_changes(consent))
        self._add("subscription.cancelled", self._cancellations(hazards))
        self._report(day, activity, hazards, consent)
        received = self._receive(day, activity, consent, hazards) if activity else 0
        rubbish = make_rubbish(self.platform, midnight_ms, received, stream(seed, "rubbish", day))
        self.ledger.count_rubbish(rubbish)
        if truth:
            truth.day(day, self._state.tastes, hazards, quality)
        yield from self._slices(midnight_ms, rubbish)

    def rest(self) -> EventBatch:
        """What arrives after the last day."""
        end_ms = self.platform.config.end_ms
        last_ms = max((int(columns["receive_ms"][-1]) for columns in self._pending.values()), default=end_ms)
        batch = EventBatch(end_ms, last_ms + 1, self._make_tables(self._pending))
        self._pending = {}
        return batch

    def _receive(self, day: int, activity: DayActivity, consent: ConsentDay, hazards: HazardDay) -> int:
        """Have the day's events reported and delivered; returns how many there were, resent ones included."""
        platform, seed = self.platform, self.platform.config.seed
        activity.playbacks["number"] = self._playbacks + np.arange(length(activity.playbacks))
        reported = client_events(platform, activity, platform.config.heartbeat_s * 1000, stream(seed, "player", day))
        reported |= client_signals(activity, stream(seed, "signals", day))
        post = post_sessions(platform, activity.sessions, hazards.cancel_ms, stream(seed, "offline", day))
        delivered = deliver(platform, reported, post, consent, self._numbers, stream(seed, "delivery", day))
        self._sessions += length(activity.sessions)
        self._playbacks += length(activity.playbacks)
        for name, columns in delivered.items():
            self._numbers += int((columns["copy"] != RESENT).sum())
            self._add(name, columns)
        return sum(length(columns) for columns in delivered.values())

    def _report(self, day: int, activity: DayActivity | None, hazards: HazardDay, consent: ConsentDay) -> None:
        """What the account's services say of the day."""
        random = stream(self.platform.config.seed, "account signals", day)
        for name, rows in account_signals(self.platform, activity, hazards.active, day, random).items():
            events = self._server_events(rows["viewer"], rows["at_ms"])
            self._add(name, events | {"consent": consent_at(self.platform, consent, rows)})

    def _introduce(self) -> None:
        """The catalogue, and every viewer's profile and consent, an hour before the first day."""
        platform, at_ms = self.platform, self.platform.config.start_ms - HOUR_MS
        contents = np.arange(len(platform.catalogue.content_ids))
        nobody = np.zeros(len(contents), dtype=np.int64)
        self._add("title.added", self._server_events(nobody, np.full(len(contents), at_ms)) | {"content": contents})
        everybody = np.arange(len(platform.viewers))
        self._add("profile.updated", self._server_events(everybody, np.full(len(everybody), at_ms + 1)))
        self._add("consent.changed", self._server_events(everybody, np.full(len(everybody), at_ms + 2)))

    def _consent_changes(self, consent: ConsentDay) -> Columns:
        """One event per viewer of a household that changed its mind."""
        change_ms = consent.change_ms[self.platform.viewers.household]
        viewer = np.flatnonzero(change_ms != NEVER)
        return self._server_events(viewer, change_ms[viewer])

    def _cancellations(self, hazards: HazardDay) -> Columns:
        """One event per household that cancels, in the name of its first viewer."""
        household = np.flatnonzero(hazards.cancel_ms != NEVER)
        viewer = np.searchsorted(self.platform.viewers.household, household)
        return self._server_events(viewer, hazards.cancel_ms[household]) | {"reason": hazards.reason[household]}

    def _server_events(self, viewer: NDArray[np.int64], at_ms: NDArray[np.int64]) -> Columns:
        """Columns of events by the server itself: received when they happen, with the household's latest consent."""
        first, self._numbers = self._numbers, self._numbers + len(viewer)
        return {
            "viewer": viewer,
            "receive_ms": at_ms,
            "consent": self._accounts.consent[self.platform.viewers.household[viewer]],
            "event_number": first + np.arange(len(viewer)),
            "copy": np.full(len(viewer), ORIGINAL, dtype=np.int8),
            "late": np.zeros(len(viewer), dtype=bool),
        }

    def _add(self, name: str, columns: Columns) -> None:
        """Count events and put them among those that wait for their time of receipt."""
        if not length(columns):
            return
        self.ledger.count(name, columns)
        waiting = {key: values for key, values in columns.items() if key not in ("copy", "late")}
        parts = [self._pending[name], waiting] if name in self._pending else [waiting]
        self._pending[name] = concatenate(parts)

    def _slices(self, midnight_ms: int, rubbish: list[RubbishMessage]) -> Iterator[EventBatch]:
        """Yield what is received before the day's end; keep the rest, which is sorted already, for the days after."""
        due, self._pending, pending = {}, {}, self._pending
        for name, columns in pending.items():
            ordered = take(columns, np.argsort(columns["receive_ms"], kind="stable"))
            split = int(np.searchsorted(ordered["receive_ms"], midnight_ms + DAY_MS))
            due[name] = take(ordered, slice(0, split))
            if split < length(ordered):
                self._pending[name] = {key: values[split:].copy() for key, values in ordered.items()}
        del pending
        slice_ms = self.platform.config.batch_hours * HOUR_MS
        for start_ms in range(midnight_ms, midnight_ms + DAY_MS, slice_ms):
            end_ms = start_ms + slice_ms
            received = {}
            for name, columns in due.items():
                # What came before the first midnight (catalogue, profiles) belongs to the first slice.
                bounds = np.searchsorted(columns["receive_ms"], [start_ms, end_ms])
                first = 0 if start_ms == self.platform.config.start_ms else bounds[0]
                received[name] = take(columns, slice(first, bounds[1]))
            messages = [message for message in rubbish if start_ms <= message.timestamp_ms < end_ms]
            yield EventBatch(start_ms, end_ms, self._make_tables(received), messages)

    def _make_tables(self, received: dict[str, Columns]) -> dict[str, pa.Table]:
        return {
            name: self._tables.table(name, columns) for name, columns in sorted(received.items()) if length(columns)
        }

"""OpenLineage: telling a catalogue of lineage which run read and wrote what (https://openlineage.io, spec 2-0-2).

Only where `settings.lineage` names a receiver; else the library is not even imported. Events, facets and transports are
the library's, its client is not used: that would also go by variables and files of its own, which say where to send to,
and which variables of the environment to send along.

A receiver that does not answer is told of once and left alone for a while: lineage never stops a station, and is in
the snapshots anyway (`lakehouse.lineage`).

Datasets are named as OpenLineage's naming says: a topic is `kafka://host:port` and its name; a table is the catalog's
address and its name there, with where it lies as a symlink.
"""

import logging
import queue
import re
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pyiceberg.table import Table

from pipelines.errors import UsageError
from pipelines.kafka.broker import local_bootstrap
from pipelines.settings import LineageSettings, Settings
from pipelines.version import code_version

if TYPE_CHECKING:
    from openlineage.client.transport import Transport

TIMEOUT_S = 3.0
LEFT_ALONE_S = 600.0
_log = logging.getLogger(__name__)


class ReceiverAddressError(UsageError):
    """The address that events of lineage are to be sent to is none."""

    def __init__(self) -> None:
        super().__init__(
            "lineage.openlineage_url is not an address such as http://marquez:5000; mend it, or its variable "
            "REEL_LINEAGE_OPENLINEAGE_URL, or leave both away"  # what it is may hold a password
        )


@dataclass(frozen=True)
class Dataset:
    """A table, or a folder of files (without `table`), as OpenLineage knows it."""

    table: str | None
    location: str
    columns: tuple[tuple[str, str], ...]  # name, type

    @classmethod
    def of(cls, table: Table) -> "Dataset":
        """The table as it is now."""
        columns = tuple((field.name, str(field.field_type)) for field in table.schema().fields)
        return cls(".".join(table.name()), table.location(), columns)


@dataclass(frozen=True)
class Written:
    """What a run has written: rows, bytes where that is known, and of a table the newest snapshot that it made."""

    dataset: Dataset
    rows: int
    size_bytes: int | None = None
    snapshot_id: int | None = None


class Receiver:
    """Where events go to. One that fails, or takes longer than TIMEOUT_S, is left alone for LEFT_ALONE_S."""

    def __init__(self, transport: "Transport", address: str) -> None:
        self._transport, self._address = transport, address
        self._left_alone_until = time.monotonic()

    def tell(self, event: Any) -> None:
        """Send `event`; whatever comes of that, this returns in time and raises nothing."""
        if time.monotonic() < self._left_alone_until:
            return
        # In a thread, because a time limit of the transport is one for each of its steps.
        answer: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        threading.Thread(target=self._send, args=(event, answer), daemon=True).start()
        try:
            failure = answer.get(timeout=TIMEOUT_S)
        except queue.Empty:
            failure = TimeoutError()
        if failure is not None:
            self._left_alone_until = time.monotonic() + LEFT_ALONE_S
            _log.warning(
                "lineage: %s takes no OpenLineage events (%s); it is left alone for %.0f minutes, what is made goes on",
                self._address,
                _reason(failure),
                LEFT_ALONE_S / 60,
            )

    def _send(self, event: Any, answer: "queue.SimpleQueue[Exception | None]") -> None:
        try:
            self._transport.emit(event)
        except Exception as failure:  # noqa: BLE001 - whatever a receiver does, the station goes on
            answer.put(failure)
        else:
            answer.put(None)


@dataclass(frozen=True)
class Listener:
    """Everyone who is to hear of runs, and what datasets are called there."""

    receivers: tuple[Receiver, ...]
    jobs: str
    kafka: str
    catalog: str

    @classmethod
    def of(cls, settings: Settings) -> "Listener | None":
        """The configured receivers; None when there are none. Raises ReceiverAddressError."""
        chosen = settings.lineage
        if chosen.openlineage_url is None and chosen.openlineage_file is None:
            return None
        servers = settings.kafka.bootstrap_servers or local_bootstrap(settings.kafka_folder) or "localhost"
        return cls(
            _receivers(chosen),
            chosen.namespace,
            servers if servers.startswith("embedded:") else f"kafka://{servers.split(',')[0]}",
            _public(settings.lakehouse.uri or f"sqlite://{settings.work_dir / 'catalog.db'}"),
        )

    def started(self, station: str, run_id: str) -> None:
        """A run has begun."""
        self._tell(station, run_id, "START")

    def ended(
        self,
        station: str,
        run_id: str,
        topics: Mapping[str, int],
        tables: Mapping[str, int],
        written: Iterable[Written],
        failure: BaseException | None,
    ) -> None:
        """A run has completed, or failed: it read offsets of `topics` and snapshots of `tables`."""
        from openlineage.client.facet_v2 import error_message_run

        inputs = [self._topic(name, offsets) for name, offsets in topics.items()]
        inputs += [self._table(name, snapshot_id) for name, snapshot_id in tables.items()]
        outputs = [self._output(one) for one in written]
        if failure is None:
            self._tell(station, run_id, "COMPLETE", inputs, outputs)
            return
        # Its kind only: a message may say more than a catalogue of lineage should know.
        message = error_message_run.ErrorMessageRunFacet(type(failure).__name__, programmingLanguage="PYTHON")
        self._tell(station, run_id, "FAIL", inputs, outputs, {"errorMessage": message})

    def _topic(self, name: str, offsets: int) -> Any:
        from openlineage.client.event_v2 import InputDataset
        from openlineage.client.facet_v2 import input_statistics_input_dataset

        read = input_statistics_input_dataset.InputStatisticsInputDatasetFacet(rowCount=offsets)
        return InputDataset(self.kafka, name, inputFacets={"inputStatistics": read})

    def _table(self, name: str, snapshot_id: int) -> Any:
        from openlineage.client.event_v2 import InputDataset

        return InputDataset(self.catalog, name, facets={"version": _version(snapshot_id)})

    def _output(self, one: Written) -> Any:
        from openlineage.client.event_v2 import OutputDataset
        from openlineage.client.facet_v2 import output_statistics_output_dataset, schema_dataset, symlinks_dataset

        fields = [schema_dataset.SchemaDatasetFacetFields(name, kind) for name, kind in one.dataset.columns]
        facets: dict[str, Any] = {"schema": schema_dataset.SchemaDatasetFacet(fields)}
        written = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
            rowCount=one.rows, size=one.size_bytes
        )
        statistics: dict[str, Any] = {"outputStatistics": written}
        if one.dataset.table is None:
            return OutputDataset("file", one.dataset.location, facets=facets, outputFacets=statistics)
        place = urlsplit(one.dataset.location)
        lies = symlinks_dataset.Identifier(f"{place.scheme or 'file'}://{place.netloc}", place.path, "LOCATION")
        facets |= {"symlinks": symlinks_dataset.SymlinksDatasetFacet([lies]), "version": _version(one.snapshot_id)}
        return OutputDataset(self.catalog, one.dataset.table, facets=facets, outputFacets=statistics)

    def _tell(
        self,
        station: str,
        run_id: str,
        state: str,
        inputs: Iterable[Any] = (),
        outputs: Iterable[Any] = (),
        facets: Mapping[str, Any] | None = None,
    ) -> None:
        from openlineage.client.event_v2 import Job, Run, RunEvent, RunState
        from openlineage.client.facet_v2 import processing_engine_run

        engine = processing_engine_run.ProcessingEngineRunFacet(code_version(), "reel")
        event = RunEvent(
            eventTime=datetime.now(UTC).isoformat(),
            run=Run(run_id, {"processing_engine": engine, **(facets or {})}),
            job=Job(self.jobs, station),
            eventType=RunState[state],
            inputs=list(inputs),
            outputs=list(outputs),
        )
        for receiver in self.receivers:
            receiver.tell(event)


@cache
def _receivers(chosen: LineageSettings) -> tuple[Receiver, ...]:
    """One receiver for all runs of this process: that it failed is known to the next run too."""
    from openlineage.client.event_v2 import set_producer
    from openlineage.client.transport.file import FileConfig, FileTransport
    from openlineage.client.transport.http import HttpConfig, HttpTransport

    set_producer(f"urn:reel:{code_version()}")
    receivers: list[Receiver] = []
    if chosen.openlineage_url is not None:
        once: dict[str, Any] = {"total": 0}
        try:
            transport = HttpTransport(HttpConfig(url=chosen.openlineage_url, timeout=TIMEOUT_S, retry=once))
        except ValueError:
            raise ReceiverAddressError from None
        receivers.append(Receiver(transport, _public(chosen.openlineage_url)))
    if chosen.openlineage_file is not None:
        path = str(chosen.openlineage_file)
        receivers.append(Receiver(FileTransport(FileConfig(log_file_path=path, append=True)), path))
    return tuple(receivers)


def _version(snapshot_id: int | None) -> Any:
    from openlineage.client.facet_v2 import dataset_version_dataset

    return dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=str(snapshot_id))


def _reason(failure: Exception) -> str:
    """What kind of failure, and the status that was answered; its message may hold the address with its password."""
    status = getattr(getattr(failure, "response", None), "status_code", None)
    return f"HTTP status {status}" if status is not None else type(failure).__name__


def _public(address: str) -> str:
    """An address without user, password and parameters.

    Only its scheme, where there is an @ behind the place of user and password: then some library may take for the
    password what another takes for a path.
    """
    scheme, _, rest = address.partition("://")
    place = re.split("[/?#]", rest, maxsplit=1)[0]
    if "@" in rest[len(place) :]:
        return f"{scheme}://"
    path = re.split("[?#]", rest[len(place) :], maxsplit=1)[0]
    return f"{scheme}://{place.rpartition('@')[2]}{path}"

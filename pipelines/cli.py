"""The `reel` command: one sub-command a station. Exit codes: 0 done, 1 the work failed, 2 wrong usage or settings."""

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from features.errors import FeatureError
from models.errors import ModelError
from pipelines.cli_consistency import consistency
from pipelines.cli_contract import contracts
from pipelines.cli_features import features
from pipelines.cli_lakehouse import lineage, maintain
from pipelines.cli_models import card, compare, retrain, tune
from pipelines.cli_privacy import privacy
from pipelines.cli_quality import quality
from pipelines.cli_quarantine import quarantine_app
from pipelines.cli_training_set import training_set as training_sets
from pipelines.console import complain, progress_bar, show, show_line
from pipelines.errors import ReelError
from pipelines.report import StationReport
from pipelines.settings import Settings, load_settings
from serving.errors import ServingError

app = typer.Typer(
    name="reel",
    help="Events of a streaming-TV platform into features, training sets, models and live predictions.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
importers = typer.Typer(help="Import public data as events.")
app.add_typer(importers, name="import")
app.add_typer(contracts, name="contract")
app.add_typer(features, name="features")
app.add_typer(privacy, name="privacy")
app.add_typer(quarantine_app, name="quarantine")
app.add_typer(training_sets, name="training-set")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON line instead of a table.")]
RECOMMENDATION = "recommendation"
ModelName = Annotated[str, typer.Argument(help="Which model.")]


@app.callback()
def _settings(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option(help="Settings file; else REEL_CONFIG, else configs/local.yaml.")
    ] = None,
) -> None:
    context.obj = load_settings(config)


@app.command()
def simulate(
    context: typer.Context,
    households: Annotated[int, typer.Option(help="Households on the platform.")] = 200,
    days: Annotated[int, typer.Option(help="Days of events.")] = 28,
    seed: Annotated[int, typer.Option(help="The same seed gives the same events.")] = 7,
    heartbeat_s: Annotated[int, typer.Option(help="Seconds of play between two heartbeats.")] = 30,
    as_json: Json = False,
) -> None:
    """Simulate a streaming platform into Kafka, and write the truth it was made from."""
    from pipelines.feed import feed_simulation
    from pipelines.simulator import SimulationConfig

    config = SimulationConfig(households=households, days=days, seed=seed, heartbeat_s=heartbeat_s)
    with progress_bar("simulating", shown=not as_json) as bar:
        show(feed_simulation(context.obj, config, bar.advance), as_json=as_json)


@app.command()
def traffic(
    context: typer.Context,
    events: Annotated[int, typer.Option(help="Events to send.")] = 1_000_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same events.")] = 7,
    rate: Annotated[float, typer.Option(help="Events a second of event time, as a multiple of 102,460.")] = 1.0,
    clients: Annotated[float, typer.Option(help="Share of client events; the rest are the servers'.")] = 0.0,
    people: Annotated[int, typer.Option(help="Profiles they concern.")] = 100_000,
    duplicates: Annotated[float, typer.Option(help="Share that is sent again, soon or at the very end.")] = 0.01,
    late: Annotated[float, typer.Option(help="Share that arrives late.")] = 0.01,
    malformed: Annotated[float, typer.Option(help="Messages that are no events, as a share.")] = 0.0005,
    as_json: Json = False,
) -> None:
    """Load the log with every topic in the platform's own proportions, and note what must come of it."""
    from pipelines.feed import feed_traffic
    from pipelines.traffic import TrafficConfig

    config = TrafficConfig(
        events, seed, rate, clients, people=people, duplicates=duplicates, late=late, malformed=malformed
    )
    with progress_bar("sending", shown=not as_json) as bar:
        show(feed_traffic(context.obj, config, bar.advance), as_json=as_json)


@importers.command("movielens")
def import_movielens(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="A MovieLens 100K folder (u.data, u.item, u.user).")],
    as_json: Json = False,
) -> None:
    """Import MovieLens ratings into Kafka as playbacks."""
    from pipelines.feed import feed_movielens

    with progress_bar("importing", shown=not as_json) as bar:
        show(feed_movielens(context.obj, folder, bar.advance), as_json=as_json)


@app.command()
def ingest(
    context: typer.Context,
    topic: Annotated[list[str] | None, typer.Option(help="Only these topics (may be repeated).")] = None,
    from_table: Annotated[
        str | None,
        typer.Option(help="Instead of Kafka: an Iceberg table of events, CATALOG.NAMESPACE.TABLE of `sources`."),
    ] = None,
    accept_lost: Annotated[bool, typer.Option(help="Go on past messages that Kafka deleted unread.")] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on, batch after batch, cleaning each, until stopped.")
    ] = False,
    until_idle: Annotated[
        float | None, typer.Option(help="With --follow: stop after so many seconds without a message.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Bring what Kafka, or a table that others fill, holds into bronze, exactly once."""
    if from_table is not None:
        if follow or topic:
            raise typer.BadParameter("a table is read once a run and has no topics; leave --follow and --topic out")
        from pipelines.table_source import ingest_table

        with _ray(context.obj), progress_bar("ingesting", shown=not as_json) as bar:
            report = ingest_table(
                context.obj, from_table, accept_lost=accept_lost, on_plan=bar.plan, on_progress=bar.advance
            )
    elif follow:
        from pipelines.follow import Follower

        with _ray(context.obj):
            follower = Follower(context.obj, topic or (), on_batch=lambda batch: show_line(batch, as_json=as_json))
            with follower.stopping.by_signals():
                report = follower.run(accept_lost=accept_lost, until_idle_s=until_idle)
    else:
        from pipelines.ingest import ingest as run

        with _ray(context.obj), progress_bar("ingesting", shown=not as_json) as bar:
            report = run(
                context.obj, topics=topic or (), accept_lost=accept_lost, on_plan=bar.plan, on_progress=bar.advance
            )
    show(report, as_json=as_json)


@app.command()
def clean(context: typer.Context, as_json: Json = False) -> None:
    """Bring silver up to date with bronze: valid rows, one per event id."""
    from pipelines.clean import clean as run

    with _ray(context.obj), progress_bar("cleaning", shown=not as_json) as bar:
        report = run(context.obj, on_progress=bar.reach)
    show(report, as_json=as_json)


@app.command()
def stream(
    context: typer.Context,
    until_idle: Annotated[float | None, typer.Option(help="Stop after so many seconds without a message.")] = None,
    as_json: Json = False,
) -> None:
    """Keep event features up to date from Kafka, from where `reel features` left off, until stopped."""
    from pipelines.stream.station import Streamer

    with _ray(context.obj, is_live=True):
        streamer = Streamer(context.obj)
        with streamer.stopping.by_signals():
            report = streamer.run(until_idle_s=until_idle)
    show(report, as_json=as_json)


@app.command()
def train(
    context: typer.Context,
    model: ModelName = RECOMMENDATION,
    config: Annotated[
        list[str] | None,
        typer.Option(help="Hyperparameters: a YAML file, or key=number (may be repeated).", metavar="FILE|KEY=NUMBER"),
    ] = None,
    training_set: Annotated[
        Path | None, typer.Option("--training-set", help="A training set's folder; else the model's newest.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Instead of training.workers.")] = None,
    address: Annotated[str | None, typer.Option(help="A Ray cluster to train on, instead of ray.address.")] = None,
    as_json: Json = False,
) -> None:
    """Train a model on its newest training set; goes on from its last checkpoint if it was stopped."""
    from models.task import load_task
    from pipelines.hyperparameters import hyperparameters
    from pipelines.model_training_set import latest_for

    settings: Settings = context.obj
    if address is not None:
        settings = settings.model_copy(update={"ray": settings.ray.model_copy(update={"address": address})})
    configuration = hyperparameters(settings, model, config or ())
    folder = training_set or latest_for(settings.work_dir, load_task(model))
    from pipelines.train import train as run  # MLflow and Ray Train: seconds that nobody waits whose set is missing

    with _ray(settings, is_live=True), progress_bar("training", shown=not as_json) as bar:
        work = partial(
            run,
            model,
            folder,
            tracking_uri=settings.tracking_uri,
            storage=settings.work_dir / "checkpoints",
            configuration=configuration,
            workers=workers or settings.training.workers,
            use_gpu=settings.training.use_gpu,
            on_progress=bar.reach,
        )
        report = _audited(settings, "train", model, work)
    show(report, as_json=as_json)


@app.command()
def evaluate(
    context: typer.Context,
    model: ModelName = RECOMMENDATION,
    version: Annotated[str | None, typer.Option(help="A registered version; else the newest.")] = None,
    as_json: Json = False,
) -> None:
    """Judge a registered model on the test period, beside its baselines."""
    from pipelines.evaluate import evaluate as run

    work = partial(run, model, tracking_uri=context.obj.tracking_uri, version=version)
    show(_audited(context.obj, "evaluate", model, work), as_json=as_json)


@app.command()
def publish(
    context: typer.Context,
    model: ModelName = RECOMMENDATION,
    version: Annotated[
        str | None, typer.Option(help="A registered version; else the newest, or with --roll-back the champion.")
    ] = None,
    roll_back: Annotated[
        bool, typer.Option("--roll-back", help="Give the alias back to the champion there was before.")
    ] = False,
    reason: Annotated[str | None, typer.Option(help="With --roll-back: why, for people who will ask.")] = None,
    as_json: Json = False,
) -> None:
    """Make a model champion if it beats the champion by more than noise; or undo that."""
    from pipelines.publish import publish as run
    from pipelines.roll_back import roll_back as undo

    if reason is not None and not roll_back:
        raise typer.BadParameter("--reason is for --roll-back; the gate gives its own")
    where = {"tracking_uri": context.obj.tracking_uri, "version": version}
    why = {} if reason is None else {"reason": reason}
    work = partial(undo, model, **where, **why) if roll_back else partial(run, model, **where)
    show(_audited(context.obj, "publish", model, work), as_json=as_json)


@app.command()
def assemble(
    context: typer.Context,
    config: Annotated[
        list[str] | None,
        typer.Option(
            help="Settings of the cascade: a YAML file, or key=number (may be repeated).", metavar="FILE|KEY=NUMBER"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make one servable of the champions: retrieve, rank, diversify."""
    from pipelines.assemble import CASCADE
    from pipelines.assemble import assemble as run
    from pipelines.hyperparameters import hyperparameters

    settings: Settings = context.obj
    given = hyperparameters(settings, CASCADE, config or ())
    given.pop("seed")  # nothing is drawn
    show(run(settings, configuration=given), as_json=as_json)


@app.command()
def demo(
    context: typer.Context,
    keep: Annotated[bool, typer.Option("--keep", help="Go on serving until stopped.")] = False,
) -> None:
    """Run the whole road on a small simulated platform, ask it two questions, and change the answers by an event."""
    from pipelines.demo import run_demo

    run_demo(context.obj, keep=keep)


@app.command()
def status(context: typer.Context, as_json: Json = False) -> None:
    """Show what there is: tables, what they have consumed, models."""
    from pipelines.status import status as run

    show(run(context.obj), as_json=as_json)


for keeping in (compare, card, tune, retrain, quality, consistency, maintain, lineage):
    app.command()(keeping)


@app.command()
def serve(
    context: typer.Context,
    port: Annotated[int | None, typer.Option(help="Instead of serving.port.")] = None,
) -> None:
    """Answer features and recommendations over HTTP until stopped."""
    from pipelines.serve import serve as run

    raise typer.Exit(run(context.obj, port=port))


@app.command()
def deployment(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Where they are written.")] = Path("configs/deploy"),
    as_json: Json = False,
) -> None:
    """Write the files that `serve deploy` and KubeRay start the service by, from these settings."""
    from pipelines.deployment import deployment as run

    show(run(context.obj, folder), as_json=as_json)


@app.command()
def token(
    context: typer.Context,
    subject: Annotated[str, typer.Option(help="Who asks; limits are counted by it.")] = "laptop",
    scope: Annotated[list[str] | None, typer.Option(help="What for (may be repeated); everything by default.")] = None,
    hours: Annotated[float, typer.Option(help="How long it is good for.", min=0.01)] = 1.0,
) -> None:
    """Print a token for the service; where an identity provider signs them, they come from there."""
    from pipelines.console import say
    from pipelines.tokens import HOUR_S, SCOPES, new_token

    say(new_token(context.obj, subject, scope or SCOPES, int(hours * HOUR_S)))


def _ray(settings: Settings, *, is_live: bool = False) -> AbstractContextManager[None]:
    from pipelines.cluster import connected  # Ray takes seconds to import, which a mistyped option need not wait for

    return connected(settings, is_live=is_live)


def _audited(settings: Settings, station: str, model: str, work: Callable[[], StationReport]) -> StationReport:
    """A station that works on a model, as a run of the lakehouse that its rows came from."""
    from models.task import load_task
    from pipelines.lakehouse.lineage import reported

    return reported(settings, station, work, load_task(model).purpose)


def main() -> None:
    """Run the command line; every failure that was foreseen is one line and its exit code."""
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # read when MLflow is imported
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except (ReelError, FeatureError, ModelError, ServingError) as error:
        complain(" ".join(str(error).split()))
        sys.exit(getattr(error, "exit_code", 1))
    except typer.TyperException as error:  # wrong usage
        complain(" ".join(error.format_message().split()).rstrip(".") + "; see `reel --help`")
        sys.exit(2)
    except (typer.Abort, KeyboardInterrupt):
        complain("stopped")
        sys.exit(130)


if __name__ == "__main__":
    main()

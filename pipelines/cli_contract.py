"""`reel contract`: what the events are, and whether a change of them may go out."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.contract.evolution import Mode
from pipelines.errors import ContractBroken, NoBaseline

if TYPE_CHECKING:  # what only commands need is imported by them: `reel --help` shall not wait for it
    from pipelines.contract.check import Comparison
    from pipelines.contract.registry import SchemaRegistry

Json = Annotated[bool, typer.Option("--json", help="Print one JSON line instead of text.")]

contracts = typer.Typer(help="The event contract: its catalogue, and whether a change of it may go out.")


@contracts.command()
def show(
    context: typer.Context,
    event: Annotated[str | None, typer.Argument(help="Only this event, with all its properties.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the whole catalogue as a page for the browser.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the whole catalogue as Markdown.")] = None,
) -> None:
    """Show all events by domain, or one with its properties."""
    from pipelines.console import say, show_rows
    from pipelines.contract import catalogue
    from pipelines.contract.events import load_contract
    from pipelines.quality.output import write_whole

    contract = load_contract(context.obj.schemas)
    for path, page in ((html, catalogue.html), (markdown, catalogue.markdown)):
        if path is not None:
            write_whole(path, page(contract))
            say(f"{path}: {len(contract.events)} events")
    if html is not None or markdown is not None:
        return
    if event is None:
        show_rows(catalogue.EVENT_HEADINGS, catalogue.event_rows(contract))
        return
    for one in [one for one in contract.events if one.name == event] or [contract.event(event)]:
        say(f"{one.name}: {one.doc}")
        say(f"topic {one.topic}, owner {one.owner}, consent {one.consent_category}, record {one.fullname}")
        columns = [*catalogue.own_columns(one), *catalogue.envelope_columns(contract)]
        show_rows(catalogue.PROPERTY_HEADINGS, catalogue.property_rows(columns))


@contracts.command()
def check(
    context: typer.Context,
    registry: Annotated[
        str | None, typer.Option(help="URL or path of a registry; the configured one unless --revision is given.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="A git revision, such as HEAD~1 or origin/main.")] = None,
    mode: Annotated[
        Mode, typer.Option(case_sensitive=False, help="What may change: Reel's own rule, or a mode of Confluent's.")
    ] = Mode.REEL,
    as_json: Json = False,
) -> None:
    """Compare the working tree's events with a registry or a git revision; exits 1 if anything breaks."""
    from pipelines.contract.check import baseline_of_contract, baseline_of_registry, compare
    from pipelines.contract.events import load_contract
    from pipelines.contract.revision import contract_at

    if registry is not None and revision is not None:
        raise NoBaseline(
            "the contract is compared with a --registry or with a --revision, not with both; leave one out"
        )
    contract = load_contract(context.obj.schemas)
    if revision is not None:
        baseline = baseline_of_contract(contract_at(revision, context.obj.schemas))
        against = f"revision {revision}"
    else:
        opened = _existing_registry(registry or context.obj.registry_location)
        baseline = baseline_of_registry(opened)
        against = f"registry {opened.name}"
    _tell(compare(contract, baseline, mode), against, mode, as_json=as_json)


@contracts.command()
def register(
    context: typer.Context,
    registry: Annotated[str | None, typer.Option(help="URL or path of a registry; else the configured one.")] = None,
    as_json: Json = False,
) -> None:
    """Register all events, and have the registry refuse what would break them; nothing if one of them breaks."""
    from pipelines.contract.events import load_contract
    from pipelines.contract.register import register_contract
    from pipelines.contract.registry import open_registry

    opened = open_registry(registry or context.obj.registry_location)
    comparison = register_contract(load_contract(context.obj.schemas), opened)
    _tell(comparison, f"registry {opened.name}", Mode.REEL, as_json=as_json)


def _existing_registry(location: str) -> "SchemaRegistry":
    from pipelines.contract.registry import is_server, open_registry

    if not is_server(location) and not Path(location).exists():
        raise NoBaseline(f"there is no registry at {location} yet; `reel contract register` makes one")
    return open_registry(location)


def _tell(comparison: "Comparison", against: str, mode: Mode, *, as_json: bool) -> None:
    from pipelines.console import say

    if as_json:
        say(json.dumps({"against": against, "mode": mode, **comparison.as_dict()}))
    else:
        for each in comparison.breaks:
            say(str(each))
        say(f"{comparison} ({mode}, against {against})")
    if comparison.breaks:
        raise ContractBroken(
            f"this contract breaks what {against} holds; a breaking change needs a new event on a new topic"
        )

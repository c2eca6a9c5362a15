"""`reel contract`: what the events are, and whether a change of them may go out."""

from pathlib import Path
from typing import Annotated

import typer

contracts = typer.Typer(help="The event contract: its catalogue, and whether a change of it may go out.")


@contracts.command()
def show(
    context: typer.Context,
    event: Annotated[str | None, typer.Argument(help="Only this event, with all its properties.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the whole catalogue as a page for the browser.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the whole catalogue as Markdown.")] = None,
) -> None:
    """Show all events by domain, or one with its properties."""
    from pipelines.console import say, show_event, show_events
    from pipelines.contract import catalogue
    from pipelines.contract.events import load_contract

    contract = load_contract(context.obj.schemas)
    pages = {html: catalogue.html, markdown: catalogue.markdown}
    for path, page in pages.items():
        if path is not None:
            path.write_text(page(contract))
            say(f"{path}: {len(contract.events)} events")
    if html is not None or markdown is not None:
        return
    if event is None:
        show_events(catalogue.by_domain(contract))
        return
    for one in [one for one in contract.events if one.name == event] or [contract.event(event)]:
        show_event(one, catalogue.own_columns(one))

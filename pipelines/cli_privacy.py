"""`reel privacy`: people's rights, who may see what, and proof of what was done."""

import typer

from pipelines.cli_privacy_export import export

privacy = typer.Typer(help="People's rights, who may see what, and proof of what was done.")


@privacy.callback()
def _group() -> None:
    """Keeps the names of commands, of which there may be one only."""


privacy.command()(export)

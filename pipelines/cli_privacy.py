"""`reel privacy`: people's rights, who may see what, and proof of what was done."""

import typer

from pipelines.cli_privacy_audit import access, audit, view

privacy = typer.Typer(help="People's rights, who may see what, and proof of what was done.")
for command in (audit, access, view):
    privacy.command()(command)

"""`reel privacy`: people's rights, who may see what, and proof of what was done."""

import typer

from pipelines.cli_privacy_audit import access, audit, view
from pipelines.cli_privacy_erase import erase, receipt, verify
from pipelines.cli_privacy_export import export

privacy = typer.Typer(help="People's rights, who may see what, and proof of what was done.")

for command in (export, erase, verify, receipt, audit, access, view):
    privacy.command()(command)

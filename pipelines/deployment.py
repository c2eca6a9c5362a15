"""Deployment.

input   the settings
does    asks the service (`python -m serving --deployment`) for the file that `serve deploy` reads
output  FOLDER/serve.yaml; and the same text as `serveConfigV2` of FOLDER/rayservice.yaml, if that is there
"""

import json
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

from pipelines.errors import UsageError
from pipelines.report import StationReport, timed
from pipelines.serve import configured
from pipelines.settings import Settings

SERVE_FILE, MANIFEST_FILE = "serve.yaml", "rayservice.yaml"
HEADER = """\
# The service, for `serve deploy` and (as serveConfigV2 of rayservice.yaml) for KubeRay: serving/README.md.
# Made of configs/production.yaml by `reel --config configs/production.yaml deployment`: edit that, and make it again.
"""
_FIELD = "  serveConfigV2: |"


class NotDeployableError(UsageError):
    """The settings are those of no service for others, or the manifest has no place for them."""


def deployment(settings: Settings, folder: Path) -> StationReport:
    """Write the files. Raises NotDeployableError."""
    with timed("deployment") as report:
        said = serve_config(settings)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SERVE_FILE).write_text(HEADER + said)
        report.wrote = {"for serve deploy": str(folder / SERVE_FILE)}
        manifest = folder / MANIFEST_FILE
        if manifest.exists():
            manifest.write_text(with_serve_config(manifest.read_text(), said))
            report.wrote["for KubeRay"] = str(manifest)
    return report


def serve_config(settings: Settings) -> str:
    """The text that `serve deploy` reads. Raises NotDeployableError with what the service says against it."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "serving.json"
        file.write_text(json.dumps(configured(settings)))
        command = [sys.executable, "-m", "serving", "--config", str(file), "--deployment"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NotDeployableError(done.stderr.strip().rpartition("\n")[2])
    return done.stdout


def with_serve_config(manifest: str, said: str) -> str:
    """The manifest of a RayService with `said` as its `serveConfigV2`. Raises NotDeployableError if it has none."""
    before, field, after = manifest.partition(f"{_FIELD}\n")
    if not field:
        raise NotDeployableError(
            f"the manifest has no line `{_FIELD.strip()}`, which the service's configuration follows"
        )
    rest = after.splitlines(keepends=True)
    while rest and (rest[0].startswith("    ") or not rest[0].strip()):
        rest.pop(0)
    return before + field + textwrap.indent(said, "    ") + "".join(rest)

"""Which code made a thing: recorded in manifests and runs, so that they can be made again."""

import subprocess
from functools import cache
from importlib.metadata import version

from pipelines.settings_section import PROJECT_ROOT


@cache
def code_version() -> str:
    """The release, and where the code is a git checkout, its revision, with `+changes` if files differ from it."""
    release = version("reel")
    try:
        revision = _git("rev-parse", "--short=12", "HEAD")
        changes = "+changes" if _git("status", "--porcelain", "--untracked-files=no") else ""
    except (OSError, subprocess.CalledProcessError):
        return release
    return f"{release}-{revision}{changes}"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=PROJECT_ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()

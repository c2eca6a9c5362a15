"""`python -m serving --config FILE.json`: serve until SIGTERM or SIGINT.

Exit code 0: stopped as told; 1: it could not start; 2: wrong usage or configuration.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from serving import service
from serving.errors import ServingError
from serving.settings import load_settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the service; one line on stderr if it cannot."""
    parser = argparse.ArgumentParser(prog="python -m serving", description="Features and predictions over HTTP.")
    parser.add_argument("--config", type=Path, required=True, help="JSON file of settings (serving/settings.py)")
    options = parser.parse_args(arguments)
    try:
        service.run(load_settings(options.config))
    except ServingError as error:
        sys.stderr.write(f"serving: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

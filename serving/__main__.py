"""`python -m serving --config FILE.json`: serve until SIGTERM or SIGINT, or print the file for `serve deploy`.

Exit code 0: stopped as told; 1: it could not start; 2: wrong usage or configuration.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from serving import service
from serving.errors import ServingError
from serving.settings import ServingSettings, load_settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the service; one line on stderr if it cannot."""
    parser = argparse.ArgumentParser(prog="python -m serving", description="Features and predictions over HTTP.")
    parser.add_argument("--config", type=Path, required=True, help="JSON file of settings (serving/settings.py)")
    parser.add_argument("--deployment", action="store_true", help="print the file that `serve deploy` reads, and end")
    options = parser.parse_args(arguments)
    try:
        settings = load_settings(options.config)
        if options.deployment:
            sys.stdout.write(_deployment(settings))
        else:
            service.run(settings)
    except ServingError as error:
        sys.stderr.write(f"serving: {error}\n")
        return error.exit_code
    return 0


def _deployment(settings: ServingSettings) -> str:
    import yaml

    from serving.deploy import serve_config  # imports Ray Serve, which has to be configured before where it serves

    return yaml.safe_dump(serve_config(settings), sort_keys=False, width=110)


if __name__ == "__main__":
    sys.exit(main())

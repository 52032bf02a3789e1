"""``crossfade version``."""

from __future__ import annotations

import argparse
import importlib.metadata
from typing import Any

from crossfade.cli import options as shared
from crossfade.cli.exits import OK
from crossfade.names import API_VERSION


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "version",
        help="print the version",
        description="Print the version of this program and of the API that it speaks.",
        epilog="Exit code: 0.",
    )
    shared.add_output(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print it; return the exit code."""
    version = importlib.metadata.version("crossfade")
    if options.output is not None:
        shared.say(shared.WRITERS[options.output]({"version": version, "apiVersion": API_VERSION}))
    else:
        shared.say(f"crossfade {version} ({API_VERSION})")
    return OK

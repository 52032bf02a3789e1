"""The command line: which verbs there are, and how what goes wrong is told."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Final

from crossfade.cli import backtest
from crossfade.errors import CrossfadeError

VERBS: Final = (backtest.add_parser,)
"""What adds each verb; its parser sets ``run``, which returns the exit code."""


def main(arguments: Sequence[str]) -> int:
    """Carry a command out; return 0 when it did what it is for, 2 when it was asked wrongly."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except CrossfadeError as e:
        print(f"crossfade: {e}", file=sys.stderr)  # noqa: T201 - what a command is for
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="crossfade", description="Rolls model versions out on Kubernetes."
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    verbs.add_parser("run", help="run the operator; so does no verb at all")  # by __main__
    for add_parser in VERBS:
        add_parser(verbs)
    return parser

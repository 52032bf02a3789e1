"""The command line: which verbs there are, and how what goes wrong is told.

``crossfade`` and ``kubectl crossfade`` are the same program.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final

from crossfade.cli import (
    backtest,
    completion,
    explain,
    history,
    listing,
    options,
    orders,
    status,
    validate,
    version,
)
from crossfade.cli.exits import FAILED, OK, TIMEOUT, USAGE, FailedError, TooLateError
from crossfade.errors import CrossfadeError

VERBS: Final = (
    status.add_parser,
    listing.add_parser,
    explain.add_parser,
    history.add_parser,
    orders.add_promote,
    orders.add_abort,
    orders.add_retry,
    orders.add_undo,
    orders.add_pause,
    orders.add_resume,
    validate.add_parser,
    backtest.add_parser,
    version.add_parser,
    completion.add_parser,
)
"""What adds each verb; its parser sets ``run``, which returns the exit code."""

INTERRUPTED: Final = 130
"""Of a shell: 128 and the number of SIGINT."""


def main(arguments: Sequence[str]) -> int:
    """Carry a command out; return its exit code (``exits.py``)."""
    if arguments and arguments[0] == completion.COMPLETE:
        for word in completion.complete(_parser(), arguments[1:]):
            options.say(word)
        return OK
    asked = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = asked.run
    try:
        return run(asked)
    except TooLateError as e:
        return _fail(e, TIMEOUT)
    except FailedError as e:
        return _fail(e, FAILED)
    except CrossfadeError as e:
        return _fail(e, USAGE)
    except BrokenPipeError:
        # Whoever read the output has seen enough, such as head; Python would complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except KeyboardInterrupt:
        return INTERRUPTED


def _fail(error: CrossfadeError, code: int) -> int:
    options.warn(str(error))
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="crossfade",
        description="Rolls model versions out on Kubernetes. With kubectl: kubectl crossfade VERB.",
        epilog="crossfade VERB --help says more. Exit codes: 0 done; 1 refused or failed, with the "
        "reason; 2 asked wrongly; 3 not in time.",
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    verbs.add_parser("run", help="run the operator, as its image does")  # by __main__
    for add_parser in VERBS:
        add_parser(verbs)
    return parser

"""``crossfade``: runs the operator, or a command. Neither imports the other's parts."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Run the operator with ``run``, or as ``python -m crossfade`` alone; else a command.

    Not by a script's name alone: who types ``kubectl crossfade`` wants to know what it can do, and
    no second operator with a person's rights.
    """
    arguments = sys.argv[1:]
    is_module = Path(sys.argv[0]).name == "__main__.py"
    if arguments == ["run"] or (is_module and not arguments):
        from crossfade.main import main as run_operator  # noqa: PLC0415 - 40 MB, not for commands

        run_operator()
    else:
        from crossfade.cli.command import main as run_command  # noqa: PLC0415 - not for the operator

        sys.exit(run_command(arguments or ["--help"]))


if __name__ == "__main__":
    main()

"""``crossfade``: runs the operator, or a command. Neither imports the other's parts."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the operator without a verb or with ``run``; else the command that is asked for."""
    if sys.argv[1:] in ([], ["run"]):
        from crossfade.main import main as run_operator  # noqa: PLC0415 - 40 MB, not for commands

        run_operator()
    else:
        from crossfade.cli.command import main as run_command  # noqa: PLC0415 - not for the operator

        sys.exit(run_command(sys.argv[1:]))


if __name__ == "__main__":
    main()

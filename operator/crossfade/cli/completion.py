"""``crossfade completion``: what a shell offers on Tab.

The scripts ask the program itself (``crossfade __complete WORDS...``), so there is one list of
verbs and options: the parser's.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from crossfade.cli import options as shared
from crossfade.cli.exits import OK, FailedError
from crossfade.cli.kubectl import Cluster, Kubectl

COMPLETE: Final = "__complete"
"""The verb that scripts ask; what follows are the words so far, the last one perhaps empty."""

SCRIPTS: Final[Mapping[str, str]] = {
    "bash": """\
# crossfade completion for bash: source <(crossfade completion bash)
_crossfade() {
    local IFS=$'\\n'
    COMPREPLY=($(crossfade __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _crossfade crossfade
""",
    "zsh": """\
#compdef crossfade
# crossfade completion for zsh: source <(crossfade completion zsh)
_crossfade() {
    local -a found
    found=("${(@f)$(crossfade __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "$found" ]]; then compadd -a found; else _files; fi
}
compdef _crossfade crossfade
""",
    "fish": """\
# crossfade completion for fish: crossfade completion fish | source
function __crossfade
    set -l words (commandline -opc) (commandline -ct)
    crossfade __complete $words[2..-1] 2>/dev/null
end
complete -c crossfade -f -a '(__crossfade)'
complete -c crossfade -s f -l filename -rF
""",
}


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "completion",
        help="print what a shell needs to complete words",
        description="Print a script for your shell. Source it, for example in ~/.bashrc: "
        "source <(crossfade completion bash)",
        epilog="Exit code: 0 printed; 2 asked wrongly.",
    )
    parser.add_argument("shell", choices=tuple(SCRIPTS))
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print it; return the exit code."""
    shared.say(SCRIPTS[options.shell].rstrip("\n"))
    return OK


def complete(parser: argparse.ArgumentParser, words: Sequence[str]) -> Iterator[str]:
    """Yield what the last word could become."""
    *before, word = words or [""]
    verbs = _verbs(parser)
    if not before:
        yield from (verb for verb in verbs if verb.startswith(word))
        return
    verb = verbs.get(before[0])
    if verb is None:
        return
    awaited = _awaited(verb, before[1:])
    if awaited is not None:
        yield from (str(choice) for choice in awaited.choices or () if str(choice).startswith(word))
    elif word.startswith("-"):
        for action in verb._actions:  # noqa: SLF001 - argparse lists its options nowhere else
            yield from (flag for flag in action.option_strings if flag.startswith(word))
    else:
        yield from (one for one in _positional(verb, before[1:]) if one.startswith(word))


def _verbs(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:  # noqa: SLF001 - as above
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            return dict(action.choices)
    return {}


def _awaited(verb: argparse.ArgumentParser, before: Sequence[str]) -> argparse.Action | None:
    """Return the option whose value the last word is; None: of none."""
    if not before:
        return None
    for action in verb._actions:  # noqa: SLF001 - as above
        if before[-1] in action.option_strings and action.nargs != 0:
            return action
    return None


def _positional(verb: argparse.ArgumentParser, before: Sequence[str]) -> Iterator[str]:
    for action in verb._actions:  # noqa: SLF001 - as above
        if action.option_strings:
            continue
        if action.choices:
            yield from (str(choice) for choice in action.choices)
        elif action.dest == "name":
            yield from _names(Kubectl(_cluster_options(before)))


def _cluster_options(before: Sequence[str]) -> argparse.Namespace:
    """Read which cluster is meant from words that are not complete yet."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    shared.add_cluster(parser)
    return parser.parse_known_args(list(before))[0]


def _names(cluster: Cluster) -> Iterator[str]:
    """Yield the names of the namespace's ModelDeployments; none when they cannot be read."""
    try:
        bodies = cluster.deployments(everywhere=False)
    except FailedError:
        return
    yield from (str(body["metadata"]["name"]) for body in bodies)

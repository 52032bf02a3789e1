"""Options that several verbs share, and how they print."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import yaml

from crossfade.names import GROUP, KIND

OBJECT_NAME: Final = f"{KIND.lower()}.{GROUP}"
"""What ``-o name`` writes before the name, as kubectl does."""

_DURATION: Final = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """Add which cluster, user and namespace: kubectl's own flags, passed on to it."""
    parser.add_argument("-n", "--namespace", help="by default that of the kubeconfig's context")
    parser.add_argument("--context", help="the context of the kubeconfig")
    parser.add_argument("--kubeconfig", metavar="FILE", help="instead of kubectl's own")


def add_name(parser: argparse.ArgumentParser) -> None:
    """Add whom it is about."""
    parser.add_argument("name", metavar="NAME", help="the ModelDeployment")


def add_output(parser: argparse.ArgumentParser, *more: str) -> None:
    """Add for whom it is printed: people, or programs."""
    parser.add_argument("-o", "--output", choices=("json", "yaml", *more))


def duration(text: str) -> timedelta:
    """Read a duration as kubectl writes them, such as 90s, 10m or 1h30m."""
    found = _DURATION.fullmatch(text)
    if not text or found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write one such as 90s or 10m")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)


def say(text: str) -> None:
    """Print what a command has to say."""
    print(text, flush=True)  # noqa: T201 - what a command is for


def warn(text: str) -> None:
    """Print what a script must not read as the result."""
    print(f"crossfade: {text}", file=sys.stderr, flush=True)  # noqa: T201


WRITERS: Final[dict[str, Callable[[Any], str]]] = {
    "json": lambda value: json.dumps(value, indent=2, ensure_ascii=False),
    "yaml": lambda value: str(
        yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1000)
    ).rstrip("\n"),
}
"""How programs are told."""

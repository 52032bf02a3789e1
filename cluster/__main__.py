"""Command line of the cluster: see ``python -m cluster --help``."""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cluster import containers, host, kind, node
from cluster.addons import ensure_addons
from cluster.binaries import KIND_CHECK, ensure_built
from cluster.images_static import ensure_images, static_archives
from cluster.paths import Paths
from cluster.process import ClusterError, run
from cluster.progress import say
from cluster.status import report

DEFAULT_SCRAPE_INTERVAL: Final = "1s"


def main(arguments: list[str]) -> int:
    """Run one command; return the exit code: 0 done, 1 failed, 2 wrong use."""
    options = _parser().parse_args(arguments)
    paths = Paths.from_environment()
    command: Callable[[Paths, argparse.Namespace], int] = options.command
    try:
        return command(paths, options)
    except ClusterError as error:
        say(f"error: {error}")
        return 1
    except BrokenPipeError:
        # Whoever read the output, such as `head`, has enough; nothing is left to print.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        say("Stopped; run the same again to go on.")
        return 1


def up(paths: Paths, options: argparse.Namespace) -> int:
    """Bring the cluster up, or see that it is, and apply the add-ons."""
    started = time.monotonic()
    host.ensure_packages()
    ensure_built(paths)
    ensure_images(paths)
    with host.only_one():
        if kind.is_usable():
            _up_with_kind(paths, options)
        else:
            _up_by_hand(paths, options)
    say(f'Up in {time.monotonic() - started:.1f} s. For a shell: eval "$(python -m cluster env)"')
    return 0


def down(paths: Paths, _options: argparse.Namespace) -> int:
    """Take the cluster down and clean up after it."""
    started = time.monotonic()
    with host.only_one():
        if kind.exists():
            kind.delete(paths)
        elif paths.run.exists():
            node.stop_node(paths)
        else:
            say("There is no cluster of this cache.")
            return 0
    say(f"Down in {time.monotonic() - started:.1f} s; logs stay in {paths.logs}.")
    return 0


def status(paths: Paths, _options: argparse.Namespace) -> int:
    """Print what runs; exit code 0 only for a healthy cluster."""
    return report(paths)


def build(paths: Paths, _options: argparse.Namespace) -> int:
    """Build every program and image into the cache."""
    ensure_built(paths)
    ensure_images(paths)
    say(f"All built; programs in {paths.bin}.")
    return 0


def load(paths: Paths, options: argparse.Namespace) -> int:
    """Import image archives into the running cluster."""
    for archive in options.archives:
        load_archive(paths, archive)
    return 0


def load_archive(paths: Paths, archive: Path) -> None:
    """Import one image archive into whichever cluster runs.

    Raises:
        ClusterError: If none runs, or the archive is not one.
    """
    if kind.exists():
        kind.load(str(archive))
        return
    if not containers.is_answering(paths):
        message = "No cluster runs: python -m cluster up"
        raise ClusterError(message)
    name, _ = containers.read_index(archive)
    say(f"{name}: {'loaded' if containers.load(paths, archive) else 'already there'}")


def env(paths: Paths, _options: argparse.Namespace) -> int:
    """Print shell lines that make kubectl and the other programs use this cluster."""
    print(f"export KUBECONFIG={paths.kubeconfig}")
    print(f"export PATH={paths.bin}:$PATH")
    return 0


def check_kind_config(paths: Paths, _options: argparse.Namespace) -> int:
    """Load kind-config.yaml with kind's own types, strictly."""
    ensure_built(paths, (KIND_CHECK,))
    say(run([paths.bin / KIND_CHECK.name, kind.CONFIG]).strip())
    return 0


def _up_by_hand(paths: Paths, options: argparse.Namespace) -> None:
    host.claim(paths)
    if not options.fresh and node.is_healthy(paths):
        say("A healthy cluster is up; applying the add-ons.")
        node.load_static_images(paths)
    else:
        node.start_node(paths)
    ensure_addons(paths, options.scrape_interval)


def _up_with_kind(paths: Paths, options: argparse.Namespace) -> None:
    if options.fresh and kind.exists():
        kind.delete(paths)
    kind.ensure_cluster(paths)
    for archive in static_archives(paths):
        kind.load(str(archive))
    ensure_addons(paths, options.scrape_interval, with_dns=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cluster",
        description="A real one-node Kubernetes with Gateway API and Prometheus for tests.",
        epilog="Everything is kept under $CROSSFADE_CACHE, by default ~/.cache/crossfade.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, run_it: Callable[[Paths, argparse.Namespace], int]
    ) -> argparse.ArgumentParser:
        text = (run_it.__doc__ or "").partition("\n")[0]
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(command=run_it)
        return command

    starting = add("up", up)
    starting.add_argument("--fresh", action="store_true", help="start over even if one is up")
    starting.add_argument(
        "--scrape-interval",
        default=DEFAULT_SCRAPE_INTERVAL,
        help="Prometheus's, such as 500ms or 5s (default: %(default)s); applies to a running one",
    )
    add("down", down)
    add("status", status)
    add("build", build)
    add("load", load).add_argument("archives", nargs="+", type=Path, metavar="ARCHIVE")
    add("env", env)
    add("check-kind-config", check_kind_config)
    return parser


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main(sys.argv[1:]))

"""``crossfade list``: all ModelDeployments, a line each."""

from __future__ import annotations

import argparse
from typing import Any

from crossfade.cli import options as shared
from crossfade.cli.deployed import Deployed, read
from crossfade.cli.exits import OK
from crossfade.cli.kubectl import Cluster, Kubectl
from crossfade.cli.style import clean
from crossfade.cli.table import columns

HEADER = ("NAME", "PHASE", "STABLE", "CANARY", "WEIGHT", "STEP", "WHAT")


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "list",
        help="list ModelDeployments",
        description="List the ModelDeployments of a namespace, or of all.",
        epilog="Exit code: 0 listed, also when there is none; 1 they cannot be read; 2 asked "
        "wrongly.",
    )
    shared.add_cluster(parser)
    parser.add_argument("-A", "--all-namespaces", action="store_true", help="of all namespaces")
    shared.add_output(parser, "name")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """List them; return the exit code."""
    return show(options, Kubectl(options))


def show(options: argparse.Namespace, cluster: Cluster) -> int:
    """List them."""
    everywhere: bool = options.all_namespaces
    bodies = cluster.deployments(everywhere=everywhere)
    bodies.sort(key=lambda body: (body["metadata"]["namespace"], body["metadata"]["name"]))
    if options.output == "name":
        for body in bodies:
            shared.say(f"{shared.OBJECT_NAME}/{body['metadata']['name']}")
    elif options.output is not None:
        listed = {"apiVersion": "v1", "kind": "List", "items": bodies}
        shared.say(shared.WRITERS[options.output](listed))
    elif not bodies:
        where = "the cluster" if everywhere else "this namespace"
        more = "" if everywhere else "; --all-namespaces lists those of all"
        shared.warn(f"there is no ModelDeployment in {where}{more}")
    else:
        rows = [_row(read(body), everywhere=everywhere) for body in bodies]
        header = (("NAMESPACE",) if everywhere else ()) + HEADER
        shared.say("\n".join(columns([header, *rows])))
    return OK


def _row(deployed: Deployed, *, everywhere: bool) -> tuple[str, ...]:
    status = deployed.status
    return (
        *((deployed.key.namespace,) if everywhere else ()),
        deployed.key.name,
        status.phase.value,
        clean(status.stable.version) if status.stable is not None else "-",
        clean(status.canary.version) if status.canary is not None else "-",
        f"{status.weight} %" if status.canary is not None else "-",
        status.step or "-",
        clean(status.message) or "-",
    )

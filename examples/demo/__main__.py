"""The demo: a version that answers 200 and is wrong, taken back before many users notice.

    python -m examples.demo

needs a cluster with Crossfade, a Gateway and Prometheus, and the image of MLServer; `make demo`
sets all of it up first. Exit code 0: all went as promised; 1: it did not, and the reason is
printed; 130: stopped.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Final

from cluster.progress import Progress
from examples.demo.kubectl import Kubectl, KubectlError
from examples.demo.look import Looker, Snapshot
from examples.demo.stage import NAME, NAMESPACE, Stage, check_cluster
from examples.demo.summary import (
    BROKEN,
    FIRST,
    GOOD,
    find_broken_promises,
    render_accuracies,
    render_summary,
)
from examples.demo.view import Screen

LOOK_SECONDS: Final = 1.0
AROUND: Final = (
    f"Look around: kubectl -n {NAMESPACE} get modeldeployments\n"
    f"             kubectl -n {NAMESPACE} describe modeldeployment {NAME}\n"
    f"Clean up:    kubectl delete namespace {NAMESPACE}"
)


class StoryError(Exception):
    """The story cannot go on; what was seen says why."""


class Demo:
    """The story, on one cluster."""

    def __init__(self, kubectl: Kubectl, screen: Screen) -> None:
        self._kubectl = kubectl
        self._screen = screen
        self._stage = Stage(kubectl)
        self._looker = Looker(kubectl)

    def run(self) -> int:
        """Tell the story and return the exit code.

        Raises:
            KubectlError: The cluster does not do as it is told.
        """
        self._set_up()
        problems = []
        try:
            self._tell()
        except StoryError as error:
            problems.append(str(error))
        last = self._looker.look()
        self._screen.say(f"\nWhat users got\n\n{render_summary(last)}\n", bold=False)
        problems += find_broken_promises(last)
        for problem in problems:
            self._screen.say(f"FAILED: {problem}", bold=True)
        if not problems:
            self._screen.say("All as promised.", bold=True)
        self._screen.say(f"\n{AROUND}")
        return 1 if problems else 0

    def _set_up(self) -> None:
        progress = Progress("demo", 4)
        with progress.step("look at the cluster"):
            check_cluster(self._kubectl)
        with progress.step(f"namespace {NAMESPACE}, anew"):
            self._stage.clear()
        with progress.step("train three versions on scikit-learn's digits, in a Job"):
            artifacts = self._stage.train()
        with progress.step("publish the versions as ConfigMaps"):
            self._stage.publish(artifacts)
        self._artifacts = artifacts
        self._screen.say(f"\n{render_accuracies(artifacts)}")

    def _tell(self) -> None:
        self._say(f"{FIRST} goes live, and users come: 40 requests a second.")
        self._stage.release(FIRST)
        self._until(lambda it: it.phase == "Healthy" and it.stable == FIRST, 90, f"{FIRST} serves")
        self._stage.start_application(self._artifacts)
        self._until(lambda it: it.version(FIRST) is not None, 20, "users get answers")
        self._watch(4)

        self._say(
            f"{BROKEN} is released: the best so far in its notebook, where the pixels had been\n"
            "scaled first. In service nobody scales them. It answers 200, and is wrong."
        )
        self._stage.release(BROKEN)
        self._until(
            lambda it: it.phase == "RolledBack" and BROKEN in it.rejected,
            120,
            f"{BROKEN} is taken back",
            fails=lambda it: it.stable == BROKEN,
        )

        self._say(f"{GOOD} is released: the same model, with the scaling inside the artifact.")
        self._stage.release(GOOD)
        self._until(
            lambda it: it.phase == "Healthy" and it.stable == GOOD,
            150,
            f"{GOOD} is promoted, and its probation over",
            fails=lambda it: GOOD in it.rejected,
        )
        self._watch(3)

    def _say(self, text: str) -> None:
        self._screen.say(f"\n{text}\n", bold=True)

    def _watch(self, seconds: float) -> None:
        """Show what happens for a while."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            self._screen.show(self._looker.look())
            time.sleep(LOOK_SECONDS)

    def _until(
        self,
        is_done: Callable[[Snapshot], bool],
        limit_seconds: float,
        what: str,
        fails: Callable[[Snapshot], bool] = lambda _: False,
    ) -> None:
        """Show what happens until something is so.

        Raises:
            StoryError: It has become impossible, or did not happen in time.
        """
        ends = time.monotonic() + limit_seconds
        while True:
            seen = self._looker.look()
            self._screen.show(seen)
            if seen.is_current and is_done(seen):
                return
            if fails(seen):
                raise StoryError(f"cannot be any more: {what}")
            if time.monotonic() > ends:
                raise StoryError(
                    f"not so after {limit_seconds:.0f} s: {what}; phase {seen.phase or 'none'}, "
                    f"{seen.message or seen.verdict or 'no message: does the operator run?'}"
                )
            time.sleep(LOOK_SECONDS)


def main() -> int:
    """Run the demo; return the exit code."""
    screen = Screen(sys.stdout)
    try:
        return Demo(Kubectl(os.environ), screen).run()
    except KubectlError as error:
        screen.say(f"FAILED: {error}", bold=True)
        return 1
    except KeyboardInterrupt:
        screen.say(f"\nStopped; everything stays as it is.\n{AROUND}")
        return 130


if __name__ == "__main__":
    sys.exit(main())

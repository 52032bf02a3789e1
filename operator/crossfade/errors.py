"""The one tree of errors.

    CrossfadeError
    ├── InvalidSpecError       the user must change the manifest; no retry until they do
    ├── RouteError             the route cannot be written as asked; weights hold
    ├── ClusterError           the API server refused or did not answer
    │   └── ConflictError      somebody else wrote first: look again and retry
    ├── MetricSourceError      Prometheus refused, timed out or answered nonsense; weights hold
    ├── SidecarError           a pod's sidecar refused, timed out or answered nonsense; weights hold
    ├── WebhookError           a receiver or a gate could not be asked, or gave no answer
    └── CommandError           a command of the command line cannot be carried out

"No data", "not found" and "not settled" are values, not errors.
"""

from __future__ import annotations


class CrossfadeError(Exception):
    """Anything that Crossfade itself raises."""


class InvalidSpecError(CrossfadeError):
    """The spec cannot be acted on; the message tells the user what to write."""


class RouteError(CrossfadeError):
    """The route cannot carry the split; the message tells the user what to change."""


class ClusterError(CrossfadeError):
    """A request to the API server failed; worth another try."""


class ConflictError(ClusterError):
    """The object changed since it was read; look again."""


class MetricSourceError(CrossfadeError):
    """The metric source gave no usable answer: unreachable, refused, partial or malformed."""


class SidecarError(CrossfadeError):
    """A pod's sidecar gave no usable answer on its admin port."""


class WebhookError(CrossfadeError):
    """A receiver of notifications, or a gate, could not be asked, or gave no answer."""


class CommandError(CrossfadeError):
    """A command cannot be carried out; the message tells the person what to do."""

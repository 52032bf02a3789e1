"""``python -m crossfade.sidecar``."""

from __future__ import annotations

from crossfade.sidecar.main import main

main()

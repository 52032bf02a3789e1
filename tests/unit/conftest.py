"""What all unit tests share."""

from __future__ import annotations

from hypothesis import settings

# A timed test is a flaky test: examples may take as long as the machine needs.
settings.register_profile("crossfade", deadline=None, print_blob=True)
settings.load_profile("crossfade")

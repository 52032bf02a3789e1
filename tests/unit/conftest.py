"""What all unit tests share."""

from __future__ import annotations

from hypothesis import settings

# A timed test is a flaky test: examples may take as long as the machine needs. The examples are the
# same in every run, so that a change is judged by what it changes; `make fuzz` draws new ones.
settings.register_profile("crossfade", deadline=None, print_blob=True, derandomize=True)
settings.register_profile("fuzz", deadline=None, print_blob=True)
settings.load_profile("crossfade")

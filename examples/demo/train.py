"""Train the three model versions of the demo, on the spot, and print them.

Runs as a Job in the model server's own image, so that models are written by the scikit-learn that
will read them. The data: scikit-learn's copy of 1,797 handwritten digits, 8 by 8 pixels of 0 to 16
(https://archive.ics.uci.edu/dataset/80). Two fifths are held out; they become the live traffic.

The story:
    1.0.0  a logistic regression: sound, not brilliant;
    2.0.0  a support vector machine, far better in the notebook. There the pixels had been scaled to
           0..1, for training and evaluation alike, and that step never made it into the artifact.
           In service it gets pixels of 0..16, answers 200, and is wrong;
    3.0.0  the same, with the scaling inside the pipeline.

Prints one line of JSON: see `Artifacts`.
"""

from __future__ import annotations

import base64
import io
import json
import warnings
from typing import Any, Final, TypedDict

import joblib
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler
from sklearn.svm import SVC

SEED: Final = 7
HELD_OUT: Final = 0.4
LARGEST_PIXEL: Final = 16.0


class Version(TypedDict):
    """One trained version."""

    offline: float
    """Accuracy on the held-out images as its author measured it."""
    served: float
    """Accuracy of the artifact on the same images as the application sends them."""
    joblib: str
    """The artifact, base64."""


class Artifacts(TypedDict):
    """All that training yields."""

    versions: dict[str, Version]
    images: list[list[int]]
    """The held-out images, as the application sends them."""
    labels: list[int]
    """What they show."""


def train() -> Artifacts:
    """Train all versions."""
    pixels, labels = load_digits(return_X_y=True)
    split = train_test_split(pixels, labels, test_size=HELD_OUT, random_state=SEED, stratify=labels)
    seen, held_out, seen_labels, held_out_labels = split

    first = make_pipeline(MaxAbsScaler(), LogisticRegression(C=0.01, max_iter=1000))
    second = SVC()
    third = make_pipeline(MaxAbsScaler(), SVC())
    first.fit(seen, seen_labels)
    # The bug: scaled here, and so in the evaluation below, but not in the artifact.
    second.fit(seen / LARGEST_PIXEL, seen_labels)
    third.fit(seen, seen_labels)

    def version(model: Any, evaluated_on: Any) -> Version:
        return Version(
            offline=float(model.score(evaluated_on, held_out_labels)),
            served=float(model.score(held_out, held_out_labels)),
            joblib=_dump(model),
        )

    return Artifacts(
        versions={
            "1.0.0": version(first, held_out),
            "2.0.0": version(second, held_out / LARGEST_PIXEL),
            "3.0.0": version(third, held_out),
        },
        images=held_out.astype(int).tolist(),
        labels=held_out_labels.tolist(),
    )


def _dump(model: Any) -> str:
    buffer = io.BytesIO()
    joblib.dump(model, buffer, compress=3)
    return base64.b64encode(buffer.getvalue()).decode()


if __name__ == "__main__":
    warnings.simplefilter("error")
    print(json.dumps(train(), separators=(",", ":")))

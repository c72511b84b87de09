"""The model that every packager gets: a random forest of scikit-learn, some ten megabytes, and a question with its answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FEATURES = 20
TREES = 100
# What the model needs wherever it is opened; every packager is given these two lines.
REQUIREMENTS = ("scikit-learn==1.9.1", "numpy==2.4.6")
FILE = "model.joblib"


@dataclass(frozen=True)
class Forest:
    """``file`` is the model as joblib wrote it; ``rows`` is a question and ``answer`` what scikit-learn says here."""

    number: int
    file: Path
    rows: list[list[float]]
    answer: list[int]


def grow(folder: Path, number: int) -> Forest:
    """Another model of the same rows for each ``number``, and the same for the same one."""
    import joblib
    from sklearn.datasets import make_classification
    from sklearn.ensemble import RandomForestClassifier

    given, wanted = make_classification(4000, FEATURES, n_informative=12, n_classes=3, random_state=0)
    model = RandomForestClassifier(TREES, random_state=number, n_jobs=2).fit(given, wanted)
    model.n_jobs = None
    place = folder / f"forest-{number}"
    place.mkdir()
    joblib.dump(model, place / FILE)
    return Forest(number, place / FILE, given[:4].tolist(), model.predict(given[:4]).tolist())

"""The report of a tested model as JSON."""

import json

import numpy as np
import pytest

from training.saving import report_file
from training.saving.model_file import is_model

NAMES = ("cat", "dog", 'a "name", \u732b')
MATRIX = np.array([[3, 1, 0], [0, 0, 0], [2, 0, 4]])


def reject_constant(name):
    raise AssertionError(f"{name} is not standard JSON")


@pytest.mark.parametrize("mean_loss", [0.25, float("nan"), float("inf"), np.float32(0.25)])
def test_report_holds_all_measures(tmp_path, mean_loss):
    document = report_file.to_document("m.json", "data.csv", NAMES, MATRIX, mean_loss, 0.125)
    path = tmp_path / "r.json"
    path.write_text(report_file.to_text(document), encoding="ascii")
    assert report_file.is_report(path)
    assert not is_model(path)
    loaded = json.loads(path.read_text(), parse_constant=reject_constant)
    assert loaded == {
        "format": "cnn-report",
        "version": 1,
        "model": "m.json",
        "data": "data.csv",
        "images": 10,
        "accuracy": 0.7,
        "balanced_accuracy": pytest.approx((3 / 4 + 4 / 6) / 2),
        "mean_loss": 0.25 if np.isfinite(mean_loss) else None,
        "calibration_error": 0.125,
        "class_names": list(NAMES),
        "classes": [
            {"name": "cat", "precision": 0.6, "recall": 0.75, "f1": pytest.approx(2 / 3)}
            | {"support": 4},
            {"name": "dog", "precision": 0.0, "recall": None, "f1": 0.0, "support": 0},
            {"name": NAMES[2], "precision": 1.0, "recall": pytest.approx(2 / 3)}
            | {"f1": pytest.approx(0.8), "support": 6},
        ],
        "confusion_matrix": MATRIX.tolist(),
    }

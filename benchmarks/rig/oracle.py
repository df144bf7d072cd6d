"""What a release of XGBoost itself answers for booster files, in a process that may die of them.

    PYTHON benchmarks/rig/oracle.py   one JSON line {"path", "rows"} in, one line out, `answer: ` and {"scores"} or {"error"}

Rule: it needs XGBoost and NumPy alone, any release since 0.90, so that each file can be asked of the release that wrote it.
"""

from __future__ import annotations

import json
import pickle
import sys
import warnings

import numpy as np
import xgboost

warnings.simplefilter("ignore")


def scores_of(path: str, rows: np.ndarray) -> list[float]:
    with open(path, "rb") as file:
        data = file.read()
    if data[:1] == b"\x80":
        model = pickle.loads(data)  # damaged by us, in a process of its own
        booster = model if isinstance(model, xgboost.Booster) else model.get_booster()
    else:
        booster = xgboost.Booster({"nthread": 1})
        booster.load_model(path)
    matrix = xgboost.DMatrix(rows, feature_names=booster.feature_names, feature_types=booster.feature_types)
    return np.asarray(booster.predict(matrix)).ravel().tolist()


def main() -> None:
    for line in sys.stdin:
        task = json.loads(line)
        answer: dict[str, object]
        try:
            answer = {"scores": scores_of(task["path"], np.load(task["rows"]))}
        except Exception as error:  # noqa: BLE001  whatever it says, it is what XGBoost says
            answer = {"error": f"{type(error).__name__}: {str(error)[:200]}"}
        print("answer: " + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

"""What a user of scikit-learn would write: svmlight text in, a linear SVM by stochastic gradient descent, a model out.

python -m benchmarks.sklearn_script TRAIN TEST MODEL FIGURES.json LAMBDA SEED
"""

import json
import sys
import time
from pathlib import Path

import joblib
import numpy as np
from sklearn.datasets import load_svmlight_files
from sklearn.linear_model import SGDClassifier


def main(train: str, test: str, model: str, figures: str, regularization: str, seed: str) -> None:
    """Load, fit, save, score."""
    began = time.perf_counter()
    rows, labels, test_rows, test_labels = load_svmlight_files([train, test])
    for matrix in (rows, test_rows):  # read with 64-bit indices, which its solvers do not take
        matrix.indices, matrix.indptr = matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32)
    loaded = time.perf_counter()
    classifier = SGDClassifier(alpha=float(regularization), random_state=int(seed)).fit(rows, labels)
    fitted = time.perf_counter()
    joblib.dump(classifier, model)
    accuracy = classifier.score(test_rows, test_labels)
    found = {"loading": loaded - began, "training": fitted - loaded, "accuracy": accuracy}
    Path(figures).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])

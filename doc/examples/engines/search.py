"""A search among models whose workers prepare the data in place, and write predictions into one array."""

import joblib
import numpy as np
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import ParameterGrid, cross_val_predict

import sharedmem

ROWS, COLUMNS, WORKERS = 3000, 60, 2
SETTINGS = list(ParameterGrid({"C": [0.001, 0.1, 10.0], "fit_intercept": [True, False]}))


def standardise(columns):
    """Gives each column mean 0 and deviation 1, where it lies."""
    columns -= columns.mean(axis=0)
    columns /= columns.std(axis=0)


def predict(x, y, setting, probabilities):
    """Writes what a model says of the rows that it was not fitted to."""
    model = LogisticRegression(max_iter=300, **setting)
    probabilities[:] = cross_val_predict(model, x, y, cv=3, method="predict_proba")[:, 1]


def search(x, y, predicted):
    """Prepares `x`, and fills one row of `predicted` for each setting."""
    Parallel()(delayed(standardise)(x[:, first : first + 20]) for first in range(0, COLUMNS, 20))
    Parallel()(delayed(predict)(x, y, *each) for each in zip(SETTINGS, predicted, strict=True))


def main():
    x, y = make_classification(ROWS, COLUMNS, n_informative=10, random_state=3)
    shared, predicted = sharedmem.asshared(x), sharedmem.empty((len(SETTINGS), ROWS))
    with joblib.parallel_config(backend="sharedmem", n_jobs=WORKERS):
        search(shared, y, predicted)
    get_reusable_executor().shutdown()

    expected = np.empty(predicted.shape)
    with joblib.parallel_config(n_jobs=1):
        search(x, y, expected)
    print("as in one process:", np.allclose(predicted, expected))
    right = ((predicted > 0.5) == y).mean(axis=1)
    print("best:", SETTINGS[int(right.argmax())])
    blend = predicted[right >= right.max() - 0.01].mean(axis=0)
    print("the best together are at least as good:", ((blend > 0.5) == y).mean() >= right.max() - 0.005)


if __name__ == "__main__":
    main()

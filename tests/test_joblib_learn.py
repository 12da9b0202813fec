"""scikit-learn under joblib's backend "sharedmem"."""

import os
import sys

import build_tools
import numpy as np
import pytest

import sharedmem

joblib = pytest.importorskip("joblib")
pytest.importorskip("sklearn")
from joblib.externals.loky import get_reusable_executor  # noqa: E402
from sklearn.base import BaseEstimator, ClassifierMixin  # noqa: E402
from sklearn.datasets import make_classification  # noqa: E402
from sklearn.ensemble import RandomForestClassifier  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_predict  # noqa: E402

ROWS, COLUMNS = 4000, 40  # 1.3 MB: more than joblib's max_nbytes


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JOBLIB_TEMP_FOLDER", str(tmp_path_factory.mktemp("files")))
        with joblib.parallel_config(backend="sharedmem", n_jobs=2):
            joblib.Parallel()(joblib.delayed(abs)(n) for n in range(4))
        yield
        get_reusable_executor().shutdown(kill_workers=True)


@pytest.fixture
def data():
    return make_classification(ROWS, COLUMNS, random_state=0)


def fitted(search, x, y, backend):
    with joblib.parallel_config(backend=backend, n_jobs=2):
        return search().fit(x, y)


def search():
    return GridSearchCV(LogisticRegression(max_iter=200), {"C": [0.1, 1.0, 10.0]}, cv=3)


def test_a_search_finds_what_it_finds_in_one_process(workers, data):
    x, y = data
    expected = search().fit(x, y)
    for given in (x, sharedmem.asshared(x)):
        found = fitted(search, given, y, "sharedmem")
        assert np.array_equal(found.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"])
        assert found.best_params_ == expected.best_params_


def test_a_forest_is_the_same(workers, data):
    x, y = data
    make = lambda: RandomForestClassifier(20, random_state=1, n_jobs=2)
    expected = make().fit(x, y).predict_proba(x)
    # It makes joblib use threads.
    assert np.array_equal(fitted(make, x, y, "sharedmem").predict_proba(x), expected)
    with joblib.parallel_config(backend="sharedmem", n_jobs=2):
        assert np.array_equal(cross_val_predict(make(), x, y, cv=2), cross_val_predict(make(), x, y, cv=2))


class Centring(ClassifierMixin, BaseEstimator):
    """Writes into what it gets, to save memory."""

    def __init__(self, shift=0.0):
        self.shift = shift

    def fit(self, x, y):
        x -= self.shift
        self.classes_ = np.unique(y)
        self.pid_ = os.getpid()
        return self

    def predict(self, x):
        return np.full(len(x), self.classes_[0])


def test_an_estimator_may_write_into_its_part(workers, data):
    """Folds are copies that scikit-learn makes in the worker."""
    x, y = data
    before = x.copy()
    with joblib.parallel_config(backend="sharedmem", n_jobs=2):
        found = GridSearchCV(Centring(), {"shift": [1.0, 2.0]}, cv=2, error_score="raise", refit=False).fit(
            x, y
        )
    assert len(found.cv_results_["mean_test_score"]) == 2
    assert (x == before).all()


def test_the_tutorial_prints_what_its_page_shows():
    program = build_tools.ROOT / "doc" / "examples" / "engines" / "search.py"
    assert build_tools.run(sys.executable, program) == program.with_suffix(".out").read_text()

"""The model: FEATURES of a day in, its revenue out. An ordinary scikit-learn regressor, which MLflow can save and serve.

    log revenue = level + weekday + what the learner adds;   0 where the day is not expected to be one of trade

It is fitted to days of trade and predicts a median, not a mean: absolute error is its measure.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from lakehouse.ml.features import FEATURES, LOGS, Frame
from lakehouse.ml.recipes import Recipe

_AT = {name: at for at, name in enumerate(FEATURES)}
#: A day further than this from level and weekday, in logarithms, is no forecast but a fault: e^3 is twenty times.
_FARTHEST = 3.0


def _level(strength: float, rows: int, seed: int) -> Any:
    return DummyRegressor(strategy="constant", constant=0.0)


def _linear(strength: float, rows: int, seed: int) -> Any:
    return make_pipeline(StandardScaler(), Ridge(alpha=strength * rows, random_state=seed))


def _trees(strength: float, rows: int, seed: int) -> Any:
    return HistGradientBoostingRegressor(
        loss="absolute_error",
        max_iter=60,
        learning_rate=0.05,
        max_leaf_nodes=8,
        min_samples_leaf=int(strength),
        l2_regularization=10.0,
        early_stopping=False,
        random_state=seed,
    )


BUILDERS: dict[str, Callable[[float, int, int], Any]] = {"nivel": _level, "linear": _linear, "arvores": _trees}


class RevenueModel(RegressorMixin, BaseEstimator):
    """A recipe's model. Parameters are the recipe's, so that scikit-learn can copy it."""

    def __init__(self, learner: str = "nivel", level: int = 28, strength: float = 0.0, seed: int = 0) -> None:
        self.learner = learner
        self.level = level
        self.strength = strength
        self.seed = seed

    def fit(self, X: Any, y: Any) -> "RevenueModel":  # scikit-learn's own names
        """Fit to rows of FEATURES and their positive revenue."""
        x = np.asarray(X, float)
        base, rest = self._parts(x)
        self.learner_ = BUILDERS[self.learner](self.strength, len(x), self.seed)
        with threadpool_limits(1):  # a few thousand rows: more threads on a busy machine wait for each other, 5 s instead of 0.3
            self.learner_.fit(rest, np.log(np.asarray(y, float)) - base)
        self.n_features_in_ = x.shape[1]
        return self

    def predict(self, X: Any) -> "np.ndarray[Any, Any]":
        """Revenue of each row, 0 or more."""
        x = np.asarray(X, float)
        base, rest = self._parts(x)
        with threadpool_limits(1):
            added = np.clip(self.learner_.predict(rest), -_FARTHEST, _FARTHEST)
        return np.where(x[:, _AT["aberto"]] >= 0.5, np.exp(base + added), 0.0)

    def _parts(self, x: "np.ndarray[Any, Any]") -> "tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]":
        """Level and weekday, and every feature relative to them."""
        if x.ndim != 2 or x.shape[1] != len(FEATURES):
            raise ValueError(f"{len(FEATURES)} features are needed in this order: {', '.join(FEATURES)}")
        level = x[:, _AT[f"nivel_{self.level}"]]
        base = level + x[:, _AT["fator_semana"]]
        rest = x.copy()
        for name in LOGS:
            rest[:, _AT[name]] -= base if name.startswith("mesmo_dia") else level
        return base, rest


def fit(recipe: Recipe, frame: Frame, *, at: int, seed: int) -> RevenueModel:
    """A recipe's model of what was known at the end of day `at` (an ordinal)."""
    known = frame.known(at)
    model = RevenueModel(learner=recipe.learner, level=recipe.level, strength=recipe.strength, seed=seed)
    return model.fit(known.x, known.y)


def importance(model: RevenueModel, frame: Frame, *, seed: int) -> dict[str, float]:
    """How much the mean absolute error grows, as a share, when a feature is shuffled among rows; largest first."""
    from sklearn.inspection import permutation_importance

    if not len(frame):
        return {}
    found = permutation_importance(
        model, frame.x, frame.y, scoring="neg_mean_absolute_error", n_repeats=3, random_state=seed
    ).importances_mean
    error = float(np.abs(model.predict(frame.x) - frame.y).mean()) or 1.0
    shares = {name: float(value) / error for name, value in zip(FEATURES, found, strict=True)}
    return dict(sorted(shares.items(), key=lambda pair: -pair[1]))

"""The ways in which a scikit-learn model can become ONNX, from the one that is right most often on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .agreement import Array
from .boosted_trees import forest_of, histogram_forest
from .double_trees import with_double_thresholds
from .forest import forest_model
from .opened import Attempt, Job
from .precision import joined, with_float_body, with_float_inputs
from .sklearn_convert import convert, steps_of, tensor_type
from .thresholds import inner_trees

Typed = Callable[[str], "list[tuple[str, Any]]"]
"""The inputs' names and types, where numbers have the type of this name."""


@dataclass(frozen=True)
class Ways:
    """``thresholds``: those that trees compare the inputs themselves with."""

    model: Any
    thresholds: dict[int, Array]
    typed: Typed
    job: Job

    def attempts(self) -> list[Attempt]:
        """What comes out with FP32 inputs goes before what makes clients send FP64."""
        if len(getattr(self.model, "steps", [])) > 1:
            return self._of_steps()
        return [*self._of_one(), _narrow("computed in FP64", self._wide), Attempt("all numbers in FP64", self._wide)]

    def _of_steps(self) -> list[Attempt]:
        first = [Attempt("", self._plain), _narrow("all but the last step in FP64", self._split)]
        if _jumps_at_thresholds(self.model.steps[-1][1]):
            # In FP32 the steps before them move numbers across thresholds, and training puts thresholds where data is.
            first = [_narrow("", self._split), Attempt("all steps in FP32", self._plain)]
        wide = [_narrow("computed in FP64", self._wide), Attempt("input and all but the last step in FP64", self._split)]
        return [*first, *wide, Attempt("all numbers in FP64", self._wide)]

    def _of_one(self) -> list[Attempt]:
        first = [Attempt("", self._plain)]
        if _is_histogram(self.model):
            first = [
                _narrow("", self._forest),
                Attempt("input in FP64", self._forest),
                Attempt("skl2onnx's converter", self._plain),
            ]
        if self.thresholds:
            first += [_narrow("thresholds in FP64", self._exact), Attempt("thresholds and input in FP64", self._exact)]
        return first

    def _plain(self) -> Any:  # noqa: ANN401 - onnx.ModelProto
        return convert(self.model, self.typed("FloatTensorType"), self.job)

    def _wide(self) -> Any:  # noqa: ANN401 - onnx.ModelProto
        return convert(self.model, self.typed("DoubleTensorType"), self.job)

    def _exact(self) -> Any:  # noqa: ANN401 - onnx.ModelProto
        return with_double_thresholds(self._plain(), self.thresholds)

    def _forest(self) -> Any:  # noqa: ANN401 - onnx.ModelProto
        return forest_model(histogram_forest(self.model), self.typed("DoubleTensorType")[0][0])

    def _split(self) -> Any:  # noqa: ANN401 - onnx.ModelProto
        return _in_two_parts(self.model, self.typed("DoubleTensorType"), self.job)


def _narrow(remedy: str, make: Callable[[], Any]) -> Attempt:
    return Attempt(remedy, lambda: with_float_inputs(make()), narrow=True)


def _in_two_parts(model: Any, initial_types: list[tuple[str, Any]], job: Job) -> Any:  # noqa: ANN401 - a pipeline, a ModelProto
    """The steps before the last in FP64, as they were trained; the last one as it reads numbers itself: trees of scikit-learn
    in FP32, histogram trees with their thresholds in FP64."""
    last = model.steps[-1][1]
    first = convert(type(model)(model.steps[:-1]), initial_types, job)
    forest = forest_of(last)
    if forest is not None:
        return joined(first, forest_model(forest, "prepared"))
    body = convert(last, [("prepared", tensor_type("FloatTensorType")([None, int(last.n_features_in_)]))], job)
    return joined(first, with_float_body(body))


def jumps_somewhere(model: Any) -> bool:  # noqa: ANN401 - any estimator
    """Whether its answer jumps at values that training may have put where data is: thresholds behind other steps, bins."""
    steps = steps_of(model)
    return any(_jumps_at_thresholds(step) or hasattr(step, "bin_edges_") or hasattr(step, "quantiles_") for step in steps)


def _jumps_at_thresholds(model: Any) -> bool:  # noqa: ANN401 - any estimator
    library = type(model).__module__.partition(".")[0]
    return bool(inner_trees(model)) or _is_histogram(model) or library in ("xgboost", "lightgbm")


def _is_histogram(model: Any) -> bool:  # noqa: ANN401 - any estimator
    return type(model).__name__ in ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor")

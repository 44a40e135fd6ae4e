"""FlaskWorker by itself: what a module's class finds when it is made and called."""

from typing import Any

import pytest

from basic_inference_server import FlaskWorker
from contracts.inference import InvalidInput
from online_worker.endpoint import EndpointContext


class LinearWorker(FlaskWorker):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(prefix_log="[LIN]", **kwargs)

    def _load_model(self) -> None:
        self.loads = getattr(self, "loads", 0) + 1
        self.weights = (self.cfg_weight, self.cfg_bias)

    def _pre_process(self, inputs: dict[str, Any]) -> Any:
        if "x" not in inputs:
            raise InvalidInput("x is missing.")
        return inputs["x"]

    def _predict(self, prep_inputs: Any) -> Any:
        return self.weights[0] * prep_inputs + self.weights[1]

    def _post_process(self, pred: Any) -> Any:
        return {"y": pred}


class UsesItsModelInTheConstructor(LinearWorker):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.first_weight = self.weights[0]


class LoadsWithWhatItsConstructorSet(LinearWorker):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = 10

    def _load_model(self) -> None:
        self.weights = (self.factor, 0)


def made(kind: type[FlaskWorker], **entry: Any) -> tuple[FlaskWorker, list[tuple[str, str]]]:
    told: list[tuple[str, str]] = []
    context = EndpointContext(
        "linear", {"WEIGHT": 2, "BIAS": 1, **entry}, "w1", lambda notif, msg: told.append((notif, msg))
    )
    worker = kind.create(context)
    worker.load(None)
    return worker, told


def answered(worker: FlaskWorker, inputs: dict[str, Any]) -> Any:
    return worker.postprocess(worker.predict(worker.preprocess(inputs)))


def test_a_call_goes_through_the_three_steps() -> None:
    worker, _ = made(LinearWorker)

    assert answered(worker, {"x": 3}) == {"y": 7}


def test_each_key_of_the_configuration_is_an_attribute_in_lower_case() -> None:
    worker, _ = made(LinearWorker, WEIGHT=5, new_Key="n")

    assert worker.config_data == {"WEIGHT": 5, "BIAS": 1, "new_Key": "n"}
    assert (worker.cfg_weight, worker.cfg_bias, worker.cfg_new_key) == (5, 1, "n")


def test_an_attribute_that_nothing_sets_is_missing_as_on_any_object() -> None:
    worker, _ = made(LinearWorker)

    with pytest.raises(AttributeError, match="LinearWorker has no cfg_wieght"):
        _ = worker.cfg_wieght
    with pytest.raises(AttributeError, match="LinearWorker has no wieghts"):
        _ = worker.wieghts


@pytest.mark.parametrize("kind", [UsesItsModelInTheConstructor, LoadsWithWhatItsConstructorSet])
def test_the_model_is_loaded_in_time_for_either_habit_of_constructors(kind: type[FlaskWorker]) -> None:
    worker, _ = made(kind)

    assert answered(worker, {"x": 0})["y"] in {0, 1}


def test_the_model_is_loaded_once() -> None:
    worker, _ = made(UsesItsModelInTheConstructor)

    assert worker.loads == 1


def test_notifications_reach_the_operator() -> None:
    worker, told = made(LinearWorker)

    worker._create_notification(notif="log", msg="here")

    assert told == [("log", "here")]


def test_what_a_step_raises_is_told_and_goes_on() -> None:
    worker, told = made(LinearWorker)

    with pytest.raises(TypeError):
        worker.predict(None)

    assert [(kind, message.split(":")[0]) for kind, message in told] == [("exception", "Exception in _predict")]


def test_a_callers_mistake_is_not_the_operators_concern() -> None:
    worker, told = made(LinearWorker)

    with pytest.raises(InvalidInput):
        worker.preprocess({})

    assert told == []


def test_a_class_that_lacks_a_step_is_told_its_name() -> None:
    class Half(FlaskWorker):
        pass

    worker, _ = made(Half)

    with pytest.raises(NotImplementedError, match="Half must implement _predict"):
        worker.predict(1)

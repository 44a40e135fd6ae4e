"""The example ``vector_sum``: its training, its weights files, and its endpoint."""

import base64
import importlib
import io
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models_examples.build import ROOT
from online_worker.engines.base import LoadedModel
from tests.support.endpoint_calls import asked, asked_with_tensors, example_endpoint, refused

FOLDER = ROOT / "vector_sum"
WEIGHTS = ("weights_1.txt", "weights_2.txt", "weights_3.txt")


@pytest.fixture(scope="module", autouse=True)
def neighbours() -> Iterator[None]:
    """The example's modules find each other as they do where its script runs."""
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))
    for name in ("train", "network"):
        sys.modules.pop(name, None)


@pytest.fixture
def train() -> Any:
    return importlib.import_module("train")


@pytest.fixture
def network() -> Any:
    return importlib.import_module("network")


@pytest.fixture
def endpoint() -> Iterator[LoadedModel]:
    loaded = example_endpoint("vector_sum", FOLDER / "weights_1.txt")
    yield loaded
    loaded.close()


# --- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WEIGHTS)
def test_the_readme_tells_how_each_file_was_made_and_its_errors(name: str, train: Any, network: Any) -> None:
    row = re.search(rf"\| `{name}` \| (\S+) \| (\S+) \| (\S+) \| (\S+) \|", (FOLDER / "README.md").read_text())

    mean, largest = train.errors_of(network.from_text((FOLDER / name).read_bytes()))

    assert row is not None
    training = train.TRAININGS[name]
    assert (int(row[1]), int(row[2])) == (training.samples, training.steps)
    assert float(row[3]) == pytest.approx(mean, rel=0.05)
    assert float(row[4]) == pytest.approx(largest, rel=0.05)


@pytest.mark.parametrize("name", WEIGHTS)
def test_the_training_makes_the_same_network_again(name: str, train: Any, network: Any) -> None:
    committed = network.from_text((FOLDER / name).read_bytes())
    vectors = np.random.default_rng(0).uniform(train.LOW, train.HIGH, (1000, 2))

    again = train.trained(train.TRAININGS[name])

    _, largest = train.errors_of(committed)
    difference = np.abs(again.predict(vectors) - committed.predict(vectors)).max()
    assert difference <= 2 * largest, "other processors round differently, and learn as well"


def test_one_training_writes_the_same_file_twice(train: Any, network: Any) -> None:
    shortest = train.TRAININGS["weights_3.txt"]

    first, second = (network.to_text(train.trained(shortest)) for _ in range(2))

    assert first == second
    assert network.from_text(first.encode()).predict(np.zeros((1, 2))).shape == (1,)


def test_more_training_gives_smaller_errors(train: Any, network: Any) -> None:
    errors = [train.errors_of(network.from_text((FOLDER / name).read_bytes())) for name in WEIGHTS]

    assert errors == sorted(errors)


def test_the_slopes_are_those_of_the_predictions(train: Any) -> None:
    weights = np.random.default_rng(5).normal(size=33)
    vectors = np.random.default_rng(6).uniform(-1, 1, (4, 2))
    step = 1e-6

    slopes = train._slopes(train._network(weights), vectors)

    for place in range(33):
        moved = weights.copy()
        moved[place] += step
        change = train._network(moved).predict(vectors) - train._network(weights).predict(vectors)
        np.testing.assert_allclose(slopes[:, place], change / step, atol=1e-4)


# --- the endpoint ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "within"), [("weights_1.txt", 1e-4), ("weights_2.txt", 5e-3), ("weights_3.txt", 2e-2)]
)
def test_it_adds_with_the_weights_that_it_was_given(name: str, within: float) -> None:
    loaded = example_endpoint("vector_sum", FOLDER / name)

    results = [asked(loaded, {"vector": vector})["result"] for vector in ([0.3, 0.7], [-1, 1], [0, -0.5])]

    assert results == pytest.approx([1.0, 0.0, -0.5], abs=within)
    assert results != [1.0, 0.0, -0.5], "a network only comes near"


def test_it_takes_and_gives_tensors(endpoint: LoadedModel) -> None:
    answer = asked_with_tensors(endpoint, vector=np.array([0.3, 0.7], np.float32))

    assert answer["result"].dtype == np.float32
    np.testing.assert_allclose(answer["result"], [1.0], atol=1e-4)


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ({}, "two numbers; None was sent"),
        ({"vector": [1]}, "two numbers; [1] was sent"),
        ({"vector": [1, 2, 3]}, "two numbers; [1, 2, 3] was sent"),
        ({"vector": ["0.3", 0.7]}, "two numbers"),
        ({"vector": [True, 0.7]}, "two numbers"),
        ({"vector": {"x": 1, "y": 2}}, "two numbers"),
        ({"vector": [10**400, 0]}, "must be finite"),
        ({"vector": list(range(1000))}, "…"),
    ],
)
def test_what_is_no_vector_is_refused_with_an_example(
    document: dict[str, Any], why: str, endpoint: LoadedModel
) -> None:
    message = refused(endpoint, document)

    assert why in message
    assert len(message) < 200


# --- what is refused as weights --------------------------------------------------------------------------------------


def packed(**changed: object) -> bytes:
    """A weights file whose arrays are replaced by these; None leaves one out."""
    arrays: dict[str, Any] = {
        "hidden_weights": np.zeros((2, 8)),
        "hidden_biases": np.zeros(8),
        "output_weights": np.zeros((8, 1)),
        "output_bias": np.zeros(1),
        **changed,
    }
    archive = io.BytesIO()
    np.savez(archive, allow_pickle=True, **{name: array for name, array in arrays.items() if array is not None})
    return base64.b64encode(archive.getvalue())


def zip_bomb() -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("hidden_weights.npy", bytes(10 * 2**20))
    return base64.b64encode(archive.getvalue())


class Opened:
    """Would make a folder where a pickle of it is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return Path.mkdir, (self.folder,)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no .npz archive"),
        (b"Dear colleague!", "not base64"),
        (b"////", "no .npz archive"),
        (base64.b64encode(b"PK\x03\x04" + bytes(100)), "no .npz archive"),
        (packed(hidden_weights=np.zeros((3, 8))), r"hidden_weights has the shape \[3, 8\]; this network has \[2, 8\]"),
        (packed(output_bias=np.zeros(())), r"output_bias has the shape \[\]"),
        (packed(hidden_biases=None), "lack hidden_biases"),
        (packed(hidden_biases=np.full(8, np.nan)), "hidden_biases holds a number that is not finite"),
        (packed(output_bias=np.array([np.inf])), "output_bias holds a number that is not finite"),
        (packed(output_bias=np.array([1])), "output_bias holds int64"),
        (packed(hidden_biases=np.zeros(20_000)), "at most 65536|unpacks to more"),
        (zip_bomb(), "unpacks to more than 65536"),
    ],
)
def test_a_file_without_the_weights_of_this_network_is_refused(content: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.txt"
    path.write_bytes(content)

    with pytest.raises(Exception, match=why) as refusal:
        example_endpoint("vector_sum", path)

    assert type(refusal.value).__name__ == "WeightsError"


def test_the_broken_file_of_the_example_is_refused() -> None:
    with pytest.raises(Exception, match=r"hidden_weights has the shape \[3, 8\]"):
        example_endpoint("vector_sum", FOLDER / "weights_broken.txt")


def test_nothing_in_a_weights_file_is_run(tmp_path: Path) -> None:
    path, made = tmp_path / "weights.txt", tmp_path / "made"
    path.write_bytes(packed(hidden_biases=np.array([Opened(made)] * 8, dtype=object)))

    with pytest.raises(Exception, match=r"no \.npz archive"):
        example_endpoint("vector_sum", path)

    assert not made.exists()


def test_an_endpoint_without_weights_says_how_to_send_them() -> None:
    with pytest.raises(Exception, match="send a file with /set_weights"):
        example_endpoint("vector_sum", None)

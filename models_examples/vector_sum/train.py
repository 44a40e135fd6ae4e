"""Trains the network and writes the weights files: ``python train.py``.

Each training goes on from a random start with Levenberg-Marquardt steps (Marquardt 1963): least squares on few weights,
for which they need some dozens of passes where gradient descent needs many thousands.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from network import HIDDEN, SHAPES, Array, Network, to_text

LOW, HIGH = -1.0, 1.0
"""Both numbers lie between these."""
_STEPS_BETWEEN = 41
_DAMPING, _LEAST_DAMPING, _MOST_DAMPING = 1e-2, 1e-9, 1e9


class Training(NamedTuple):
    """How one weights file is made."""

    seed: int
    samples: int
    """Random vectors that it learns from."""
    steps: int


TRAININGS = {
    "weights_1.txt": Training(seed=1, samples=400, steps=100),
    "weights_2.txt": Training(seed=2, samples=200, steps=40),
    "weights_3.txt": Training(seed=3, samples=50, steps=12),
}
BROKEN = "weights_broken.txt"
"""Weights of a network with three inputs: every worker must refuse them."""


def trained(training: Training) -> Network:
    """The network after this training."""
    random = np.random.default_rng(training.seed)
    vectors = random.uniform(LOW, HIGH, (training.samples, 2))
    sums = vectors.sum(axis=1)
    weights = np.concatenate([random.normal(0, 0.5, int(np.prod(shape))) for shape in SHAPES.values()])
    damping = _DAMPING
    errors = _network(weights).predict(vectors) - sums
    for _ in range(training.steps):
        slopes = _slopes(_network(weights), vectors)
        curvature = slopes.T @ slopes
        step = np.linalg.solve(curvature + damping * np.eye(len(weights)), slopes.T @ errors)
        tried = _network(weights - step).predict(vectors) - sums
        if tried @ tried < errors @ errors:
            weights, errors, damping = weights - step, tried, max(damping / 3, _LEAST_DAMPING)
        else:
            damping = min(damping * 2, _MOST_DAMPING)
    return _network(weights)


def _network(weights: Array) -> Network:
    ends = np.cumsum([int(np.prod(shape)) for shape in SHAPES.values()])[:-1]
    pieces = np.split(weights, ends)
    return Network(*(piece.reshape(shape) for piece, shape in zip(pieces, SHAPES.values(), strict=True)))


def _slopes(network: Network, vectors: Array) -> Array:
    """How each prediction changes with each weight; a row per vector."""
    hidden = network.hidden(vectors)
    before = (1 - hidden**2) * network.output_weights[:, 0]
    by_input = vectors[:, :, None] * before[:, None, :]
    return np.hstack([by_input.reshape(len(vectors), 2 * HIDDEN), before, hidden, np.ones((len(vectors), 1))])


def errors_of(network: Network) -> tuple[float, float]:
    """The mean and the largest absolute error on a grid between LOW and HIGH, which no training has seen."""
    line = np.linspace(LOW, HIGH, _STEPS_BETWEEN)
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    errors = np.abs(network.predict(grid) - grid.sum(axis=1))
    return float(errors.mean()), float(errors.max())


def broken() -> Network:
    """A network that takes three numbers."""
    network = trained(TRAININGS["weights_3.txt"])
    third = np.zeros((1, HIDDEN))
    return Network(
        np.vstack([network.hidden_weights, third]), network.hidden_biases, network.output_weights, network.output_bias
    )


def main() -> None:
    """Write all files beside this one, and print the errors that the README tells."""
    folder = Path(__file__).parent
    for name, training in TRAININGS.items():
        network = trained(training)
        (folder / name).write_text(to_text(network), encoding="ascii")
        print(name, training, "mean error {:.1e}, largest {:.1e}".format(*errors_of(network)))
    (folder / BROKEN).write_text(to_text(broken()), encoding="ascii")


if __name__ == "__main__":
    main()

"""Boxes of text lines: rectangles at any angle, and the order in which a person reads them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import ConvexHull, QhullError

Points = npt.NDArray[np.float64]
_SAME_LINE = 0.5
"""Boxes whose centres differ by less than this share of a line's height stand on one line."""


@dataclass(frozen=True)
class Box:
    """A rectangle that may be tilted. ``axis`` is the unit vector along the text, in pixels (x, y)."""

    center: Points
    axis: Points
    width: float
    height: float

    @property
    def corners(self) -> Points:
        """Top left, top right, bottom right, bottom left, as seen along the text; one (x, y) per row."""
        along = self.axis * self.width / 2
        down = np.array([-self.axis[1], self.axis[0]]) * self.height / 2
        corners: Points = self.center + np.array([-along - down, along - down, along + down, down - along])
        return corners

    def grown(self, margin: float) -> "Box":
        """The box, larger by the margin on each side."""
        return Box(self.center, self.axis, self.width + 2 * margin, self.height + 2 * margin)

    def scaled(self, factors: Points) -> "Box":
        """The box in an image that is larger by these factors (x, y); nearly equal factors keep it a rectangle."""
        stretched = self.axis * factors
        length = float(np.linalg.norm(stretched))
        across = float(np.linalg.norm(np.array([-self.axis[1], self.axis[0]]) * factors))
        return Box(self.center * factors, stretched / length, self.width * length, self.height * across)


def smallest_box(points: Points) -> Box:
    """The rectangle of the least area around the points, laid along the text: its axis points to the right."""
    hull = _hull(points)
    edges = np.diff(hull, axis=0, append=hull[:1])
    lengths = np.linalg.norm(edges, axis=1)
    axes = edges[lengths > 0] / lengths[lengths > 0, None]
    candidates = [_box_along(hull, axis) for axis in axes] or [_box_along(hull, np.array([1.0, 0.0]))]
    return _upright(min(candidates, key=lambda box: box.width * box.height))


def _hull(points: Points) -> Points:
    try:
        return np.asarray(points[ConvexHull(points).vertices], dtype=np.float64)
    except QhullError:  # fewer than three points, or all on one line
        return points[[int(points[:, 0].argmin()), int(points[:, 0].argmax())]]


def _box_along(points: Points, axis: Points) -> Box:
    frame = np.array([axis, [-axis[1], axis[0]]])
    turned = points @ frame.T
    low, high = turned.min(axis=0), turned.max(axis=0)
    width, height = high - low
    return Box((low + high) / 2 @ frame, axis, float(width), float(height))


def _upright(box: Box) -> Box:
    """The same rectangle, named so that the text runs to the right; of two sides, the nearer to level is the width."""
    x, y = box.axis
    if abs(x) < abs(y):
        box = Box(box.center, np.array([-y, x]), box.height, box.width)
    return box if box.axis[0] >= 0 else Box(box.center, -box.axis, box.width, box.height)


def in_lines(boxes: Sequence[Box]) -> list[list[Box]]:
    """The boxes by line from top to bottom, and within each from left to right."""
    lines: list[list[Box]] = []
    for box in sorted(boxes, key=lambda box: float(box.center[1])):
        if lines and _continues(lines[-1], box):
            lines[-1].append(box)
        else:
            lines.append([box])
    return [sorted(line, key=lambda box: float(box.center[0])) for line in lines]


def _continues(line: Sequence[Box], box: Box) -> bool:
    last = line[-1]
    return abs(float(box.center[1] - last.center[1])) < _SAME_LINE * min(box.height, last.height)

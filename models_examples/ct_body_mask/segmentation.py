"""Finds the body in a CT volume: everything that is denser than air and hangs together, with what it encloses."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

TISSUE_HU = -400.0
"""Between lung (about -800) and fat (about -100)."""
TABLE_RADIUS_MM = 3.0
"""Structures thinner than twice this, such as the shell of the table, are cut off before the body is chosen."""

Mask = npt.NDArray[np.bool_]


class NoBodyError(Exception):
    """Nothing in the volume is dense and thick enough to be a body."""


def segment_body(hounsfield: npt.NDArray[np.float32], spacing: tuple[float, float, float]) -> Mask:
    """The mask of the body, shaped like the volume (slice, row, column); ``spacing`` in mm, in the same order.

    Raises
    ------
    NoBodyError
        There is only air, or only thin structures.
    """
    tissue = hounsfield > TISSUE_HU
    in_plane = spacing[1:]
    core = np.stack([_eroded(plane, in_plane) for plane in tissue])
    body = _largest_component(core)
    return np.stack([_regrown(*planes, in_plane) for planes in zip(body, tissue, strict=True)])


def _eroded(plane: Mask, spacing: tuple[float, ...]) -> Mask:
    """Without the outer ``TABLE_RADIUS_MM``; beyond the picture counts as tissue, so nothing is lost at its edges."""
    if plane.all():
        return plane
    return np.asarray(ndimage.distance_transform_edt(plane, sampling=spacing) > TABLE_RADIUS_MM)


def _largest_component(mask: Mask) -> Mask:
    labels, count = ndimage.label(mask)
    if count == 0:
        raise NoBodyError("No body was found: nothing in the images is denser than air and thick enough.")
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == sizes.argmax())


def _regrown(core: Mask, tissue: Mask, spacing: tuple[float, ...]) -> Mask:
    """The core with the rim that the erosion took, and with its holes (lungs, bowel gas) filled."""
    if not core.any():
        return core
    near = ndimage.distance_transform_edt(~core, sampling=spacing) <= TABLE_RADIUS_MM + max(spacing)
    return np.asarray(ndimage.binary_fill_holes(near & tissue))

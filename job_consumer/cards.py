"""The NVIDIA cards of this host, as the driver's own folder names them; every container sees it, without any runtime.

One folder per card, named by its PCI address; in it a file ``information`` with a line ``GPU UUID:``, whose value the
driver knows once the card was initialised: until then it prints question marks for the digits. Format and words:
``kernel-open/nvidia/nv-procfs.c`` of NVIDIA/open-gpu-kernel-modules. A card that the operator excluded from the
driver (``GPU Excluded: Yes``) is none, as for ``nvidia-smi``, whose numbers come in the same PCI order.
"""

import re
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc/driver/nvidia/gpus")

_ADDRESS = re.compile(r"([0-9a-f]+):([0-9a-f]+):([0-9a-f]+)\.([0-9a-f]+)", re.IGNORECASE)
_UUID = re.compile(r"GPU(-[0-9a-f]+)+")


class NoCard(Exception):
    """The card that was asked for cannot be used now; the message says what is there and what to do."""


@dataclass(frozen=True)
class Card:
    """One card; its UUID is None as long as the driver has not initialised it."""

    address: str
    model: str
    uuid: str | None


def cards(proc: Path = PROC) -> list[Card]:
    """The cards of this host in the order of their PCI addresses.

    Raises
    ------
    NoCard
        There is no driver, or its files cannot be read.
    """
    try:
        folders = [folder for folder in proc.iterdir() if _ADDRESS.fullmatch(folder.name)]
        read = [(folder.name, _fields((folder / "information").read_text())) for folder in folders]
    except FileNotFoundError as error:
        raise NoCard(f"No NVIDIA driver is loaded on this host: there is no {error.filename}.") from error
    except OSError as error:
        raise NoCard(f"The NVIDIA driver does not say which cards there are: {error}.") from error
    found = [
        Card(name, given.get("Model", "?"), _known(given.get("GPU UUID", "")))
        for name, given in read
        if given.get("GPU Excluded") != "Yes"
    ]
    return sorted(found, key=lambda card: _place(card.address))


def uuid_of(index: int, proc: Path = PROC) -> str:
    """The UUID of the n-th card, counted from 0.

    Raises
    ------
    NoCard
        There is no such card, or the driver has not initialised it.
    """
    found = cards(proc)
    if index >= len(found):
        names = "; ".join(f"{n}: {card.model} at {card.address}" for n, card in enumerate(found)) or "none"
        raise NoCard(f"GPU_INDEX {index}: this host has no such card; its cards are: {names}.")
    card = found[index]
    if card.uuid is None:
        raise NoCard(
            f"GPU_INDEX {index}: the driver has not initialised the card at {card.address}, so that its UUID is not "
            "known; start nvidia-persistenced on the host, or run nvidia-smi there once."
        )
    return card.uuid


def _fields(text: str) -> dict[str, str]:
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def _known(uuid: str) -> str | None:
    return uuid if _UUID.fullmatch(uuid) else None


def _place(address: str) -> tuple[int, ...]:
    """Domain, bus, device, function: as numbers, for a domain may have more than four digits."""
    match = _ADDRESS.fullmatch(address)
    assert match is not None, "only such folders were taken"  # noqa: S101
    return tuple(int(part, 16) for part in match.groups())

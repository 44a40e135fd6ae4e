from pathlib import Path

import pytest

from job_consumer.cards import Card, NoCard, cards, uuid_of

UNKNOWN = "GPU-????????-????-????-????-????????????"


def uuid(digit: str) -> str:
    return f"GPU-{digit * 8}-{digit * 4}-{digit * 4}-{digit * 4}-{digit * 12}"


class Driver:
    """The driver's folder, filled as ``nv-procfs.c`` prints it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, address: str, uuid: str | None, *, excluded: str = "No") -> None:
        folder = self.folder / address
        folder.mkdir(parents=True)
        uuid_line = [] if uuid is None else [f"GPU UUID: \t {uuid}"]
        lines = [
            "Model: \t\t NVIDIA H100 80GB HBM3",
            "IRQ:   \t\t 10",
            *uuid_line,
            "Video BIOS: \t 96.00.99.00.01",
            "Bus Type: \t PCIe",
            "DMA Size: \t 52 bits",
            "DMA Mask: \t 0xfffffffffffff",
            f"Bus Location: \t {address}",
            "Device Minor: \t 5",
            "GPU Firmware: \t 535.129.03",
            f"GPU Excluded:\t {excluded}",
        ]
        (folder / "information").write_text("\n".join(lines) + "\n")


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    return Driver(tmp_path / "gpus")


def test_cards_come_in_the_order_of_their_addresses_as_numbers(driver: Driver) -> None:
    for address, digit in (("10000:01:00.0", "d"), ("0000:0a:00.0", "b"), ("0000:9a:00.0", "c"), ("0000:09:01.0", "a")):
        driver.has(address, uuid(digit))

    assert [card.uuid for card in cards(driver.folder)] == [uuid(digit) for digit in "abcd"]
    assert [uuid_of(index, driver.folder) for index in range(4)] == [uuid(digit) for digit in "abcd"]


def test_a_card_is_known_by_address_and_model(driver: Driver) -> None:
    driver.has("0000:62:00.0", uuid("a"))

    assert cards(driver.folder) == [Card("0000:62:00.0", "NVIDIA H100 80GB HBM3", uuid("a"))]


@pytest.mark.parametrize("shown", [UNKNOWN, None])
def test_a_card_that_the_driver_has_not_initialised_is_named_with_the_cure(driver: Driver, shown: str | None) -> None:
    driver.has("0000:01:00.0", shown)

    with pytest.raises(NoCard, match=r"0000:01:00\.0.*nvidia-persistenced.*nvidia-smi"):
        uuid_of(0, driver.folder)


def test_one_card_that_sleeps_does_not_shift_the_numbers_of_the_others(driver: Driver) -> None:
    driver.has("0000:01:00.0", UNKNOWN)
    driver.has("0000:02:00.0", uuid("b"))

    assert uuid_of(1, driver.folder) == uuid("b")


def test_a_card_that_the_operator_excluded_is_none(driver: Driver) -> None:
    driver.has("0000:01:00.0", uuid("a"), excluded="Yes")
    driver.has("0000:02:00.0", uuid("b"))

    assert uuid_of(0, driver.folder) == uuid("b")


def test_a_number_beyond_the_cards_is_answered_with_those_that_are_there(driver: Driver) -> None:
    driver.has("0000:01:00.0", uuid("a"))

    with pytest.raises(NoCard, match=r"GPU_INDEX 1: .* 0: NVIDIA H100 80GB HBM3 at 0000:01:00\.0"):
        uuid_of(1, driver.folder)


def test_a_host_without_the_driver_is_said_to_have_none(tmp_path: Path) -> None:
    with pytest.raises(NoCard, match=f"No NVIDIA driver is loaded.*{tmp_path}/gpus"):
        cards(tmp_path / "gpus")


def test_a_driver_without_a_card_is_said_to_have_none(driver: Driver) -> None:
    driver.folder.mkdir()

    with pytest.raises(NoCard, match="its cards are: none"):
        uuid_of(0, driver.folder)

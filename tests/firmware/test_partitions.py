"""The flash of a board is divided so that the boot loader finds, starts and replaces the firmware.

The rules are those of ESP-IDF's partition tables: applications on 64 KiB boundaries, everything
else on 4 KiB ones, nothing over anything else, all of it inside the flash.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import attrs
import pytest

FIRMWARE = Path(__file__).parent.parent.parent / "firmware"
KIB = 1024
MIB = 1024 * KIB
FIRST_OFFSET = 0x9000  # the boot loader and the table itself end here
APPLICATION_ALIGNMENT = 64 * KIB  # what the flash cache can map
DATA_ALIGNMENT = 4 * KIB  # what the flash can erase
NAME_LENGTH = 15  # 16 bytes with the terminating zero
TABLES = {"partitions_4mb.csv": 4 * MIB, "partitions_8mb.csv": 8 * MIB}
TABLES |= {"partitions_16mb.csv": 16 * MIB}


@attrs.frozen
class Partition:
    """One row of a table; offset and size in bytes."""

    name: str
    type: str
    subtype: str
    offset: int
    size: int

    @property
    def end(self) -> int:
        """The first byte behind the partition."""
        return self.offset + self.size


def _read(text: str) -> list[Partition]:
    rows = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    partitions = []
    for row in rows:
        name, kind, subtype, offset, size = (cell.strip() for cell in row.split(","))
        partitions.append(Partition(name, kind, subtype, int(offset, 0), int(size, 0)))
    return partitions


def _faults(partitions: list[Partition], flash_bytes: int) -> list[str]:
    """Everything that keeps the table from booting, one sentence each."""
    faults = []
    for partition in partitions:
        application = partition.type == "app"
        alignment = APPLICATION_ALIGNMENT if application else DATA_ALIGNMENT
        if partition.offset % alignment or partition.size % DATA_ALIGNMENT or partition.size <= 0:
            faults.append(f"{partition.name} is not aligned")
        if len(partition.name) > NAME_LENGTH:
            faults.append(f"{partition.name} has too long a name")
    ordered = sorted(partitions, key=lambda partition: partition.offset)
    if ordered[0].offset < FIRST_OFFSET:
        faults.append(f"{ordered[0].name} lies over the partition table")
    faults += [f"{a.name} overlaps {b.name}" for a, b in pairwise(ordered) if a.end > b.offset]
    if ordered[-1].end > flash_bytes:
        faults.append(f"{ordered[-1].name} ends behind the flash")
    if len({partition.name for partition in partitions}) < len(partitions):
        faults.append("two partitions have one name")
    return faults


def _table(name: str) -> list[Partition]:
    return _read((FIRMWARE / name).read_text())


def test_every_table_is_checked() -> None:
    """No table lies beside the tests."""
    assert {path.name for path in FIRMWARE.glob("partitions*.csv")} == set(TABLES)


@pytest.mark.parametrize("name", TABLES)
def test_a_board_boots_from_the_table(name: str) -> None:
    """Aligned, without overlap, inside the flash, with room for settings and for the radio."""
    partitions = _table(name)
    assert _faults(partitions, TABLES[name]) == []
    kinds = {(partition.type, partition.subtype) for partition in partitions}
    assert {("data", "nvs"), ("data", "phy"), ("data", "coredump")} <= kinds


def test_the_smallest_flash_has_one_application() -> None:
    """Two applications of this size do not fit into 4 MB; nothing pretends that they do."""
    applications = [part for part in _table("partitions_4mb.csv") if part.type == "app"]
    assert [part.subtype for part in applications] == ["factory"]


@pytest.mark.parametrize("name", ["partitions_8mb.csv", "partitions_16mb.csv"])
def test_an_update_has_a_slot_as_large_as_what_it_replaces(name: str) -> None:
    """Rollback needs two equal slots and 8 KiB for the boot loader's choice."""
    partitions = {partition.subtype: partition for partition in _table(name)}
    assert partitions["ota_0"].size == partitions["ota_1"].size
    assert partitions["ota"].size == 8 * KIB
    assert partitions["spiffs"].name == "model"  # esp-sr looks for this name


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("x, app, ota_0, 0x11000, 0x10000", "x is not aligned"),
        ("x, data, nvs, 0x9800, 0x1000", "x is not aligned"),
        ("x, data, nvs, 0x9000, 0x0", "x is not aligned"),
        ("x, data, nvs, 0x8000, 0x1000", "x lies over the partition table"),
        ("x, app, ota_0, 0x400000, 0x10000", "x ends behind the flash"),
        ("x, data, nvs, 0x1f000, 0x2000", "x overlaps app"),
        ("app, data, nvs, 0x9000, 0x1000", "two partitions have one name"),
        ("a-name-of-16-char, data, nvs, 0x9000, 0x1000", "a-name-of-16-char has too long a name"),
    ],
)
def test_the_check_sees(row: str, fault: str) -> None:
    """Each rule fails on a table that breaks it."""
    assert fault in _faults(_read(f"app, app, factory, 0x20000, 0x10000\n{row}"), 4 * MIB)

"""docs/openstack.md says what there is: every setting with its default, and every sentence of a refusal."""

from __future__ import annotations

import re
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import pytest

from workers.openstack_settings import (
    GOOD_MACHINE,
    MIN_MACHINE,
    BootVolume,
    CloudSettings,
    MachineSize,
    NewestImage,
    OpenStackSettings,
    PreparedImages,
    Prewarm,
)  # fmt: skip

WORKERS = Path(__file__).parents[2] / "workers"
TEXT = (Path(__file__).parents[2] / "docs/openstack.md").read_text()
ROWS = {
    name: cells[1].strip()
    for line in TEXT.splitlines()
    if line.startswith("| `")
    for cells in [line.strip("| ").split("|")]
    for name in re.findall(r"`(\w+)`", cells[0])
}
"""The second cell of each row of a table, by the names in its first."""


def default(field: Field[Any]) -> Any:
    """Give the default of a field, None where there is none."""
    if field.default_factory is not MISSING:
        return field.default_factory()
    return None if field.default is MISSING else field.default


def shown(cell: str, value: Any) -> bool:
    """Whether a cell shows a default."""
    if value in (None, "", (), {}) or isinstance(value, PreparedImages):
        return not re.match(r"-?\d|true|false", cell)
    return bool(re.match(rf"{str(value).lower()}\b", cell))


@pytest.mark.parametrize(
    "field", [*fields(OpenStackSettings), *fields(CloudSettings)], ids=lambda field: str(field.name)
)
def test_every_setting_has_a_row(field: Field[Any]) -> None:
    """Every setting stands in a table, with the default that is in force."""
    assert field.name in ROWS
    assert shown(ROWS[field.name], default(field)), (ROWS[field.name], default(field))


def test_the_default_sizes_are_shown() -> None:
    """The row of both sizes, the example above it and settings.example.yaml show the sizes that are in force."""
    for name, size in (("good_machine", GOOD_MACHINE), ("min_machine", MIN_MACHINE)):
        text = f"{{disk: {size.disk}, ram: {size.ram}, cpus: {size.cpus}}}"
        assert f"`{text}`" in ROWS[name]
        assert f"{name}: {text}" in TEXT
        assert f"{name}: {text}" in (WORKERS.parent / "settings.example.yaml").read_text()


@pytest.mark.parametrize("of", [MachineSize, NewestImage, BootVolume, Prewarm, PreparedImages])
def test_every_part_of_a_setting_is_told(of: type) -> None:
    """The parts of settings that have some are told by their names."""
    missing = [one.name for one in fields(of) if not re.search(rf"`{one.name}`|\b{one.name}:", TEXT)]
    assert missing == []


def test_every_sentence_of_a_refusal_is_explained() -> None:
    """The first words of every sentence that a cloud's refusal becomes stand in the table of errors."""
    source = "".join(
        (WORKERS / f"{name}.py").read_text() for name in ("cloud_errors", "placement", "openstack")
    )
    sentences = re.findall(r'Trouble\(\s*Kind\.\w+, f?"([^"]*)"', source)
    sentences += re.findall(r'(?:NoMachineEver\(\s*|said = )f?"([^"]*)"', source)
    assert len(sentences) > 20
    plain = TEXT.replace("`", "")
    longest = [
        max((one.strip(" :,;") for one in re.split(r"\{[^}]*\}|\(", sentence.replace("`", ""))), key=len)
        for sentence in sentences
    ]
    assert [words for words in longest if words not in plain] == []

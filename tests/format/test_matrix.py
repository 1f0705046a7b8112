"""Every format converts to every other with equal content: a row each, and all ordered pairs of them.

The sources are made by QEMU, the targets by us and read by QEMU.
"""
import os
from dataclasses import dataclass

import pytest

from conftest import sparse_disk


@dataclass(frozen=True)
class Row:
    """A layout that images have; NAME tells it from the others of its format."""
    name: str
    format: str
    options: str = ""

    def words(self):
        return ["-O", self.format, *(["-o", self.options] if self.options else [])]


ROWS = [
    Row("raw", "raw"),
    Row("qcow2", "qcow2"),
    Row("qcow", "qcow"),
    Row("qed", "qed"),
    Row("vmdk-sparse", "vmdk", "subformat=monolithicSparse"),
    Row("vmdk-flat", "vmdk", "subformat=monolithicFlat"),
    Row("vmdk-split", "vmdk", "subformat=twoGbMaxExtentSparse"),
    Row("vmdk-split-flat", "vmdk", "subformat=twoGbMaxExtentFlat"),
    Row("vmdk-stream", "vmdk", "subformat=streamOptimized"),
    Row("vhdx-dynamic", "vhdx", "subformat=dynamic"),
    Row("vhdx-fixed", "vhdx", "subformat=fixed"),
    Row("vhd-dynamic", "vpc", "subformat=dynamic"),
    Row("vhd-fixed", "vpc", "subformat=fixed,force_size=on"),
    Row("vdi-dynamic", "vdi"),
    Row("vdi-static", "vdi", "static=on"),
]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The disk, and one image of every row with its content."""
    from conftest import call
    place = tmp_path_factory.mktemp("matrix")
    before = os.getcwd()
    os.chdir(place)
    sparse_disk("disk.raw", 2 * 1024 * 1024 + 512, seed=5)
    for row in ROWS:
        call("qemu-img", "convert", "-f", "raw", *row.words(), "disk.raw", f"from-{row.name}")
    os.chdir(before)
    return place


@pytest.mark.parametrize("source", ROWS, ids=lambda row: row.name)
def test_converts_to_all(sources, folder, cairn, qemu, source):
    disk, image = sources / "disk.raw", sources / f"from-{source.name}"
    cairn("compare", "-f", source.format, "-F", "raw", image, disk)
    for target in ROWS:
        name = f"to-{target.name}"
        cairn("convert", "-f", source.format, *target.words(), image, name)
        qemu("compare", "-f", target.format, "-F", "raw", name, disk)


@pytest.mark.parametrize("row", [row for row in ROWS if row.format in ("vmdk", "vhdx", "vpc", "vdi")], ids=lambda row: row.name)
def test_qemus_name_gives_qemus_answers(sources, folder, ours, qemu, row):
    """What these formats can do here and not there is not offered under the other's name."""
    image = str(sources / f"from-{row.name}")
    for words in (["info", image], ["info", "--output=json", image], ["check", image], ["check", "--output=json", image], ["check", "-r", "all", image],
                  ["resize", image, "20M"], ["snapshot", "-l", image], ["amend", "-o", "x=1", image], ["measure", "-O", row.format, image]):
        words = [words[0], *([] if words[0] == "measure" else ["-f", row.format]), *words[1:]]
        mine, theirs = (tool(*words, ok=False) for tool in (ours, qemu))
        assert (mine.code, mine.out, mine.err) == (theirs.code, theirs.out, theirs.err), words

"""VMDK images of which one copy of the tables, or a stream's end, is lost: read, checked, made whole; QEMU agrees afterwards."""
import struct
from pathlib import Path

import pytest

from conftest import sparse_disk

MIB = 1 << 20
SECTOR = 512
OUTSIDE = 0x7FFFFF00


def get(path, at, kind="I"):
    return struct.unpack_from("<" + kind, Path(path).read_bytes(), at)[0]


def put(path, at, kind, value):
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(struct.pack("<" + kind, value))


@pytest.fixture
def image(folder, cairn):
    """96 MiB, three grain tables, with something in the first and the last one."""
    sparse_disk("disk.raw", 2 * MIB, seed=4)
    with open("disk.raw", "r+b") as file:
        file.truncate(96 * MIB)
        file.seek(70 * MIB)
        file.write(b"last" * 30000)
    cairn("convert", "-O", "vmdk", "disk.raw", "d.vmdk")
    return "d.vmdk"


def whole_again(image, cairn, qemu, findings):
    """Found, told, repaired; then sound for us and for QEMU."""
    before = Path(image).read_bytes()
    cairn("compare", "-F", "raw", image, "disk.raw")
    found = cairn("check", image, ok=False)
    assert found.code == 2 and findings in found.err and Path(image).read_bytes() == before
    fixed = cairn("check", "-r", "all", image)
    assert "repaired" in fixed.out
    assert "No errors" in cairn("check", image).out
    assert qemu("check", image).code == 0
    qemu("compare", "-F", "raw", image, "disk.raw")
    cairn("io", "-f", "vmdk", "-c", "write -q -P 7 40M 1M", "-c", "read -q -P 7 40M 1M", image)
    assert "No errors" in cairn("check", image).out


@pytest.mark.parametrize(
    "field, name", [(56, "the grain directory"), (48, "the redundant grain directory")]
)
@pytest.mark.parametrize("place", [OUTSIDE, 0])
def test_a_lost_directory(image, cairn, qemu, field, name, place):
    put(image, field, "Q", place)
    refused = cairn("io", "-f", "vmdk", "-c", "write 0 512", image, ok=False)
    assert (
        refused.code == 1 and "check -r all" in refused.err and "is outside the file" in refused.err
    )
    assert "other one counts" in cairn("info", image).err + cairn("map", image).err
    whole_again(image, cairn, qemu, name + " is outside")


def test_both_directories_lost(image, cairn):
    put(image, 48, "Q", OUTSIDE)
    put(image, 56, "Q", OUTSIDE)
    for words in (["check", "-r", "all"], ["map"]):
        assert "so does the redundant one" in cairn(*words, image, ok=False).err


@pytest.mark.parametrize(
    "field, findings", [(56, "could not get cluster_offset"), (48, "the redundant grain table")]
)
@pytest.mark.parametrize("table", [0, 2])
def test_a_lost_table(image, cairn, qemu, field, findings, table):
    put(image, get(image, field, "Q") * SECTOR + table * 4, "I", OUTSIDE)
    # What lies elsewhere is written as ever; where a copy is lost, nothing is.
    done = cairn(
        "io", "-f", "vmdk", "-c", "write -q 1900k 512", "-c", "write -q 90M 512", image, ok=False
    )
    assert done.code == 1
    cairn("convert", "--overwrite", "-O", "vmdk", "disk.raw", image)
    put(image, get(image, field, "Q") * SECTOR + table * 4, "I", OUTSIDE)
    whole_again(image, cairn, qemu, findings)


def test_both_tables_lost(image, cairn):
    for field in (48, 56):
        put(image, get(image, field, "Q") * SECTOR, "I", OUTSIDE)
    assert cairn("check", "-r", "all", image, ok=False).code == 2
    assert (
        "Input/output error"
        in cairn("io", "-r", "-f", "vmdk", "-c", "read 0 512", image, ok=False).out
    )
    cairn("io", "-r", "-f", "vmdk", "-c", "read 40M 512", image)


# --- streams ---


@pytest.fixture
def stream(image, cairn):
    cairn("convert", "-O", "vmdk", "-o", "subformat=streamOptimized", "disk.raw", "s.vmdk")
    return "s.vmdk"


def grains(path):
    """Where the stream's grains begin and end, and which they are."""
    data = Path(path).read_bytes()
    at, found = get(path, 64, "Q") * SECTOR, []
    while True:
        value, size, kind = struct.unpack_from("<QII", data, at)
        if size == 0 and kind not in (1, 2):
            return found
        end = at + (12 + size + 511) // 512 * 512 if size else at + (1 + value) * SECTOR
        if size:
            found.append((at, end, value // 128))
        at = end


@pytest.mark.parametrize("lost", ["end mark", "footer", "directory", "half a grain", "all but one"])
def test_a_stream_without_its_end(stream, cairn, qemu, lost):
    places = grains(stream)
    length = Path(stream).stat().st_size
    cut = {
        "end mark": length - 1024,
        "footer": length - 1536,
        "directory": length - 2560,
        "half a grain": places[-1][1] - 512,
        "all but one": places[1][0] + 100,
    }[lost]
    kept = [place for place in places if place[1] <= cut]
    with open(stream, "r+b") as file:
        file.truncate(cut)
    refused = cairn("convert", "-O", "raw", stream, "out.raw", ok=False)
    assert refused.code == 1 and "Invalid footer" in refused.err and "check -r all" in refused.err
    found = cairn("check", stream, ok=False)
    assert (
        found.code == 2
        and f"{len(kept)} grains were found" in found.err
        and Path(stream).stat().st_size == cut
    )
    cairn("check", "-r", "all", stream)
    assert grains(stream)[: len(kept)] == kept
    assert "No errors" in cairn("check", stream).out
    assert qemu("check", stream).code == 0
    data = Path("disk.raw").read_bytes()
    expected = bytearray(len(data))
    for _, _, grain in kept:
        expected[grain * 65536 : (grain + 1) * 65536] = data[grain * 65536 : (grain + 1) * 65536]
    Path("expected.raw").write_bytes(expected)
    qemu("compare", "-f", "vmdk", "-F", "raw", stream, "expected.raw")
    # It can be continued.
    cairn("io", "-f", "vmdk", "-c", "write -q -P 3 50M 64k", stream)
    cairn("io", "-r", "-f", "vmdk", "-c", "read -q -P 3 50M 64k", stream)


@pytest.mark.parametrize("at, value", [(0, 1 << 40), (0, 100), (8, 1 << 30)])
def test_a_stream_that_lies(stream, cairn, at, value):
    """A grain beyond the disk, between grains, or larger than any: what lies in front of it is kept."""
    places = grains(stream)
    put(stream, places[2][0] + at, "Q" if at == 0 else "I", value)
    with open(stream, "r+b") as file:
        file.truncate(places[-1][1])
    assert "2 grains were found" in cairn("check", stream, ok=False).err
    cairn("check", "-r", "all", stream)
    assert "No errors" in cairn("check", stream).out


def test_compressing_what_is_flat(image, folder, cairn):
    for subformat in ("monolithicFlat", "twoGbMaxExtentFlat"):
        done = cairn(
            "convert",
            "-c",
            "-O",
            "vmdk",
            "-o",
            f"subformat={subformat}",
            image,
            "flat.vmdk",
            ok=False,
        )
        assert done.code == 1 and "Compression not supported" in done.err
    assert not list(folder.glob("flat*"))


@pytest.mark.parametrize("subformat", ["monolithicFlat", "twoGbMaxExtentSparse", "streamOptimized"])
def test_what_failed_leaves_nothing(stream, folder, cairn, subformat):
    """A source that cannot be read to its end: the target goes with all its extents."""
    put(stream, grains(stream)[-1][0] + 20, "Q", 0)
    done = cairn(
        "convert", "-O", "vmdk", "-o", f"subformat={subformat}", stream, "out.vmdk", ok=False
    )
    assert done.code == 1 and "while reading" in done.err
    assert not list(folder.glob("out*"))


def test_a_grain_that_only_the_second_table_names_is_kept(folder, cairn):
    """As a loss of power leaves it: the repair takes the entry over, and does not cut off its data."""
    sparse_disk("disk.raw", 4 << 20, pieces=40)
    cairn("convert", "-f", "raw", "-O", "vmdk", "disk.raw", "a.vmdk")
    with open("a.vmdk", "r+b") as image:
        header = image.read(512)
        directory = struct.unpack_from("<Q", header, 56)[0] * 512
        image.seek(directory)
        table = struct.unpack("<I", image.read(4))[0] * 512
        image.seek(table)
        image.write(bytes(64 * 4))  # the grains of the whole disk
    checked = cairn("check", "a.vmdk", ok=False)
    assert checked.code == 3 and "the two grain tables differ" in checked.err
    assert "grains at the end of the file" not in checked.err
    cairn("check", "-r", "leaks", "a.vmdk")
    cairn("check", "a.vmdk")
    cairn("compare", "-f", "raw", "-F", "vmdk", "disk.raw", "a.vmdk")

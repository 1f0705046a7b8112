"""What is read there and not made: the bytes are those that the program for Linux reads, and errors are its errors."""
import bz2
import gzip
import lzma
import subprocess

import pytest

import dmg_writer as dmg
from bochs_writer import redolog
from cloop_writer import LZ4, STORED, V2, V4, XZ, ZLIB, content, write
from conftest import sparse_disk
from wine import linux, windows

pytestmark = [pytest.mark.any_engine, pytest.mark.slow]
MIB = 1 << 20


def write_cloop(folder):
    data = write(folder / "old.cloop", content(700_001), 16384, preamble=V2)
    new = write(
        folder / "new.cloop",
        content(700_001),
        16384,
        preamble=V4,
        flags=(ZLIB, STORED, XZ, LZ4),
        last=True,
    )
    return {"old.cloop": data, "new.cloop": new}


def write_dmg(folder):
    data = content(64 * 512)
    kinds = (dmg.RAW, dmg.ADC, dmg.ZLIB, dmg.BZIP2, dmg.LZFSE, dmg.XZ)
    image, plain = dmg.image([(0, [(kind, data) for kind in kinds] + [(dmg.ZERO, 7)])])
    (folder / "disk.dmg").write_bytes(image)
    return {"disk.dmg": plain}


def write_bochs(folder):
    redolog(folder / "disk.bochs", extents={1: (0, {0: 7, 5: 8}), 3: (1, {9: 11})})
    return {"disk.bochs": None}


def write_split(folder):
    data = content(3 * MIB)
    for number in range(3):
        (folder / f"disk.{number + 1:03}").write_bytes(data[number * MIB : (number + 1) * MIB])
    return {"disk.001": data}


def write_packed(folder):
    data = content(2 * MIB)
    (folder / "disk.gz").write_bytes(gzip.compress(data))
    (folder / "disk.xz").write_bytes(lzma.compress(data))
    (folder / "disk.bz2").write_bytes(bz2.compress(data))
    packed = subprocess.run(["zstd", "-q", "-c"], input=data, capture_output=True, check=True)
    (folder / "disk.zst").write_bytes(packed.stdout)
    return {f"disk.{end}": data for end in ("gz", "xz", "bz2", "zst")}


def write_ova(folder):
    sparse_disk(folder / "source.raw", 3 * MIB)
    linux("convert", "-q", "-f", "raw", "source.raw", "disk.ova", cwd=folder)
    return {"disk.ova": (folder / "source.raw").read_bytes()}


WRITERS = (write_cloop, write_dmg, write_bochs, write_split, write_packed, write_ova)


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__[6:])
def test_bytes_are_equal(tmp_path, writer):
    for name, plain in writer(tmp_path).items():
        linux("convert", "-q", name, "-O", "raw", "linux.raw", cwd=tmp_path)
        windows("convert", "-q", name, "-O", "raw", "windows.raw", cwd=tmp_path)
        ours = (tmp_path / "windows.raw").read_bytes()
        assert ours == (tmp_path / "linux.raw").read_bytes(), name
        assert plain is None or ours == plain, name
        for left in ("linux.raw", "windows.raw"):
            (tmp_path / left).unlink()


@pytest.mark.parametrize("writer", [write_dmg, write_bochs], ids=["dmg", "bochs"])
def test_damaged_images_are_refused_alike(tmp_path, writer):
    for name in writer(tmp_path):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[:64] + b"\xff" * 64 + whole[128 : len(whole) // 2])
        words = ("convert", "-q", "-f", name.split(".")[1], name, "-O", "raw", "out.raw")
        ours, theirs = (run(*words, ok=False, cwd=tmp_path) for run in (windows, linux))
        assert ours.code == theirs.code == 1
        assert ours.err == theirs.err


@pytest.mark.parametrize(
    "words, driver",
    [
        (["-O", "luks", "-o", "key-secret=s0,iter-time=10"], "luks,key-secret=s0"),
        (
            ["-O", "qcow2", "-o", "encrypt.format=luks,encrypt.key-secret=s0,encrypt.iter-time=10"],
            "qcow2,encrypt.key-secret=s0",
        ),
    ],
    ids=["luks", "qcow2"],
)
def test_encrypted_images_of_linux(tmp_path, words, driver):
    sparse_disk(tmp_path / "source.raw", 3 * MIB)
    (tmp_path / "key").write_text("a passphrase")
    key = ["--object", "secret,id=s0,file=key"]
    linux("convert", "-q", *key, "-f", "raw", "source.raw", *words, "disk", cwd=tmp_path)
    opened = f"driver={driver},file.filename=disk"
    windows(
        *("compare", *key, "--image-opts", opened, "driver=raw,file.filename=source.raw"),
        cwd=tmp_path,
    )

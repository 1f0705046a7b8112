"""Files that were cut off: what is missing is never handed out as zeroes without a word."""
import hashlib
import os
import random
import shutil
import subprocess

import pytest

from conftest import CAIRN, line_with

pytestmark = pytest.mark.any_engine

MIB = 1 << 20
QUIET_IN_QEMU = ["qcow2", "vdi", "parallels", "qcow"]
LOUD = QUIET_IN_QEMU + ["qed", "vmdk", "vhdx", "vpc"]
KINDS = {
    "extended": ("qcow2", "extended_l2=on"),
    "metadata": ("qcow2", "preallocation=metadata"),
    "compressed": ("qcow2", "compression_type=zlib"),
    "static": ("vdi", "static=on"),
    "packed": ("vmdk", "subformat=streamOptimized"),
}


def digest(name):
    return hashlib.sha256(open(name, "rb").read()).hexdigest()


def cut(name, share=0.6, unit=512):
    os.truncate(name, int(os.path.getsize(name) * share) // unit * unit)


@pytest.fixture
def full(folder):
    """A disk of noise, with an end of zeroes."""
    with open("full.raw", "wb") as out:
        out.write(random.Random(5).randbytes(6 * MIB))
        out.truncate(8 * MIB)
    return "full.raw"


@pytest.mark.parametrize("kind", LOUD + list(KINDS))
def test_own_name_is_loud(full, cairn, qemu, kind):
    fmt, option = KINDS.get(kind, (kind, None))
    qemu(
        "convert",
        "-O",
        fmt,
        *(["-c"] if kind == "compressed" else []),
        *(["-o", option] if option else []),
        full,
        "a.img",
    )
    cairn("compare", "-f", fmt, "a.img", full)
    cairn("check", "-f", fmt, "a.img")
    cut("a.img")
    before = digest("a.img")
    assert cairn("convert", "-f", fmt, "-O", "raw", "a.img", "out.raw", ok=False).code == 1
    assert (
        cairn("convert", "-f", fmt, "-O", "raw", "--verify", "a.img", "out.raw", ok=False).code == 1
    )
    assert cairn("hash", "-f", fmt, "a.img", ok=False).code == 1
    assert cairn("compare", "-f", fmt, "a.img", full, ok=False).code != 0
    assert cairn("check", "-f", fmt, "a.img", ok=False).code in (1, 2, 3)
    assert cairn("compact", "-f", fmt, "a.img", ok=False).code == 1
    assert digest("a.img") == before


@pytest.mark.parametrize("fmt", QUIET_IN_QEMU)
def test_the_place_is_named(full, cairn, qemu, fmt):
    qemu("convert", "-O", fmt, full, "a.img")
    cut("a.img")
    told = cairn("hash", "-f", fmt, "a.img", ok=False).err
    assert "a.img: the data of the disk at offset " in told
    assert (
        f"is past the end of the file ({os.path.getsize('a.img')} bytes); the file was cut off"
        in told
    )


@pytest.mark.parametrize("fmt", QUIET_IN_QEMU)
def test_qemus_name_warns_once(full, ours, qemu, fmt):
    qemu("convert", "-O", fmt, full, "a.img")
    cut("a.img")
    done = ours("convert", "-f", fmt, "-O", "raw", "a.img", "ours.raw")
    assert done.err.count("warning: a.img: the data of the disk at offset") == 1
    qemu("convert", "-f", fmt, "-O", "raw", "a.img", "theirs.raw")
    assert digest("ours.raw") == digest("theirs.raw")


@pytest.mark.parametrize("fmt", QUIET_IN_QEMU + ["qed", "vmdk"])
def test_salvage_goes_on(full, cairn, qemu, fmt):
    qemu("convert", "-O", fmt, full, "a.img")
    cut("a.img")
    done = cairn("convert", "-f", fmt, "-O", "raw", "--salvage", "a.img", "out.raw")
    assert "error while reading offset" in done.err and "bytes became zeroes" in done.err
    left, whole = open("out.raw", "rb").read(), open(full, "rb").read()
    assert left[: 3 * MIB] == whole[: 3 * MIB] and len(left) == len(whole) and left != whole
    assert done.err.count("\n") < 100


def test_salvage_joins_what_was_lost(folder, cairn):
    """One warning for 44 MiB in a row, of which several workers read pieces; few for many places."""
    cairn("create", "-q", "-o", "preallocation=falloc", "a.qcow2", "64M")
    cairn("io", "-c", "write -P 1 0 64M", "a.qcow2")
    os.truncate("a.qcow2", 20 * MIB)
    words = ["convert", "--salvage", "-W", "--overwrite", "--output=json", "a.qcow2", "out.raw"]
    done = cairn(*words)
    (lost,) = done.json()["lost"]
    assert lost["bytes"] == done.json()["lost-bytes"] == 64 * MIB - lost["offset"]
    assert done.err.splitlines() == [
        f"cairn: warning: error while reading offset {lost['offset']}: Input/output error"
        f" ({lost['bytes']} bytes became zeroes)"
    ]
    with open("every other.raw", "wb") as out:
        for at in range(0, 8 * MIB, 128 << 10):
            out.seek(at)
            out.write(b"x" * 65536)
    cairn("convert", "every other.raw", "b.qcow2")
    os.truncate("b.qcow2", 1 * MIB)
    done = cairn("convert", "--salvage", "b.qcow2", "few.raw")
    assert len(done.err.splitlines()) == 21 and "in further places" in done.err
    assert cairn("convert", "-q", "--salvage", "b.qcow2", "quiet.raw").err == ""


def test_cut_vdi_is_found_and_not_repaired(full, cairn, qemu):
    qemu("convert", "-O", "vdi", full, "a.vdi")
    cut("a.vdi")
    assert cairn("check", "--output=json", "a.vdi", ok=False).json()["corruptions"] == 3
    done = cairn("check", "-r", "all", "a.vdi", ok=False)
    assert done.code != 0 and "is past the end of the file" in done.out + done.err
    assert cairn("hash", "a.vdi", ok=False).code == 1


def test_a_short_last_cluster_is_sound(full, cairn, qemu):
    """Only zeroes at the end of the last cluster are gone: QEMU leaves such files itself."""
    qemu("create", "-f", "qcow2", "a.qcow2", "8M")
    cairn("io", "-c", "write -P 7 0 4k", "a.qcow2")
    data = cairn("map", "--output=json", "a.qcow2").json()[0]["offset"]
    assert data + 65536 >= os.path.getsize("a.qcow2")
    os.truncate("a.qcow2", data + 4096)
    assert cairn("hash", "a.qcow2").out
    cairn("io", "-r", "-c", "read -P 7 0 4k", "-c", "read -P 0 4k 60k", "a.qcow2")


@pytest.mark.parametrize("where", ["layer", "base"])
def test_commit_changes_nothing(full, cairn, qemu, where):
    qemu("convert", "-O", "qcow2", full, "base.qcow2")
    qemu("create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2")
    cairn("io", "-c", "write -P 9 0 4M", "top.qcow2")
    cut("top.qcow2" if where == "layer" else "base.qcow2")
    before = digest("base.qcow2"), digest("top.qcow2")
    done = cairn("commit", "top.qcow2", ok=False)
    assert done.code == 1 and "past the end of the file" in done.err
    assert before == (digest("base.qcow2"), digest("top.qcow2"))


@pytest.mark.parametrize("which", ["top.qcow2", "old.qcow2", "new.qcow2"])
def test_rebase_changes_nothing(full, cairn, qemu, which):
    qemu("convert", "-O", "qcow2", full, "old.qcow2")
    shutil.copy("old.qcow2", "new.qcow2")
    cairn("io", "-c", "write -P 3 64k 1M", "new.qcow2")
    qemu("create", "-f", "qcow2", "-b", "old.qcow2", "-F", "qcow2", "top.qcow2")
    cairn("io", "-c", "write -P 9 2M 2M", "top.qcow2")
    cut(which)
    before = digest("top.qcow2")
    done = cairn("rebase", "-b", "new.qcow2", "-F", "qcow2", "top.qcow2", ok=False)
    assert done.code == 1 and "past the end of the file" in done.err
    assert digest("top.qcow2") == before


def test_data_file(full, cairn, ours, qemu):
    qemu("convert", "-O", "qcow2", "-o", "data_file=data.raw", full, "a.qcow2")
    cairn("check", "a.qcow2")
    os.truncate("data.raw", 3 * MIB)
    done = cairn("hash", "a.qcow2", ok=False)
    assert done.code == 1 and "data.raw: the data of the disk at offset 3145728" in done.err
    assert "past the end of the data file" in cairn("check", "a.qcow2", ok=False).err
    ours("convert", "-O", "raw", "a.qcow2", "out.raw")


def test_flat_extent(full, cairn, ours, qemu):
    qemu("convert", "-O", "vmdk", "-o", "subformat=monolithicFlat", full, "a.vmdk")
    os.truncate("a-flat.vmdk", 3 * MIB)
    done = cairn("convert", "-O", "raw", "a.vmdk", "out.raw", ok=False)
    assert done.code == 1 and "a-flat.vmdk: the data of the disk at offset 3145728" in done.err
    assert ours("convert", "-O", "raw", "a.vmdk", "out.raw").err.count("warning") == 1


@pytest.mark.parametrize("fmt", [fmt for fmt in LOUD if fmt != "qcow"])
def test_no_write_hides_what_is_missing(full, cairn, qemu, fmt):
    qemu("convert", "-O", fmt, full, "a.img")
    cut("a.img", unit=65536)
    size, before = os.path.getsize("a.img"), digest("a.img")
    done = cairn("io", "-f", fmt, "-c", "write 5M 4k", "-c", "flush", "a.img", ok=False)
    assert done.code == 1 or "write failed" in done.out + done.err
    assert os.path.getsize("a.img") == size
    if fmt == "qcow2":
        assert digest("a.img") == before


def test_a_file_that_grows_meanwhile(full, cairn, qemu):
    """What others append after the image was opened is found: only the length that was known is short."""
    qemu("convert", "-O", "vdi", full, "a.vdi")
    whole = open("a.vdi", "rb").read()
    cut("a.vdi")
    shell = subprocess.Popen(
        [CAIRN, "io", "-r", "a.vdi"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
    )
    shell.stdin.write("read 1M 4k\n")
    shell.stdin.flush()
    line_with(shell, "read 4096/4096")
    with open("a.vdi", "ab") as image:
        image.write(whole[os.path.getsize("a.vdi") :])
    out = shell.communicate("read 5M 4k\nquit\n", timeout=30)[0]
    assert "read 4096/4096 bytes at offset 5242880" in out

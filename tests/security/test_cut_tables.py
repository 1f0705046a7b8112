"""Files that were cut off in front of a table, or that somebody wants to write: nothing becomes zeroes without a word."""
import hashlib
import io
import itertools
import os
import random
import shutil
import subprocess
import tarfile

import pytest

import dmg_writer
from conftest import CAIRN
from report_cases import ovf
from cloop_writer import write as write_cloop
from mounts import mount  # noqa: F401

pytestmark = pytest.mark.any_engine

MIB = 1 << 20
CUT = "the file was cut off"
KINDS = {
    "qcow2": ("qcow2", "cluster_size=4k"),
    "small": ("qcow2", "cluster_size=512"),
    "extended": ("qcow2", "extended_l2=on,cluster_size=16k"),
    "qcow": ("qcow", None),
    "qed": ("qed", None),
    "vdi": ("vdi", None),
    "vmdk": ("vmdk", None),
    "vpc": ("vpc", "force_size=on"),
    "vhdx": ("vhdx", "block_size=1M"),
    "parallels": ("parallels", None),
}


def digest(name):
    return hashlib.sha256(open(name, "rb").read()).hexdigest()


@pytest.fixture
def full(folder):
    """A disk of noise in 64 KiB, every third of them a hole, with an end of zeroes."""
    source = random.Random(5)
    with open("full.raw", "wb") as out:
        for i in range(96):
            if i % 3 == 2:
                out.seek(65536, os.SEEK_CUR)
            else:
                out.write(source.randbytes(65536))
        out.truncate(8 * MIB)
    return "full.raw"


@pytest.fixture
def make(full, qemu):
    def image(kind, name="a.img"):
        fmt, option = KINDS[kind]
        qemu("convert", "-O", fmt, *(["-o", option] if option else []), full, name)
        return fmt

    return image


@pytest.mark.parametrize("kind", KINDS)
def test_loud_or_right_wherever_it_is_cut(make, cairn, kind):
    fmt = make(kind, "whole.img")
    size = os.path.getsize("whole.img")
    want = cairn("hash", "-f", fmt, "whole.img").out.split()[0]
    source = random.Random(kind)
    places = {
        512,
        1024,
        4096,
        65536,
        131072,
        262144,
        1239552,
        size - 65536,
        *(source.randrange(1, size // 512) * 512 for _ in range(8)),
    }
    # A last cluster may be short: the rest of it is zeroes.
    for place in sorted(place for place in places if place <= size - 65536):
        shutil.copy("whole.img", "a.img")
        os.truncate("a.img", place)
        read, check = cairn("hash", "-f", fmt, "a.img", ok=False), cairn(
            "check", "-f", fmt, "a.img", ok=False
        )
        assert read.code == 1 or read.out.split()[0] == want, place
        assert (read.code == 0) == (check.code == 0) or fmt == "vpc", (
            place,
            read.err,
            check.out,
            check.err,
        )


def test_the_table_is_named(make, cairn, ours, qemu):
    make("small")
    os.truncate("a.img", 1239552)
    told = cairn("hash", "a.img", ok=False)
    assert (
        told.code == 1
        and "a.img: a table at offset " in told.err
        and f"past the end of the file (1239552 bytes); {CUT}" in told.err
    )
    done = ours("convert", "-O", "raw", "a.img", "ours.raw")
    assert done.err.count("warning: ") == 1 and "what is missing reads as zeroes" in done.err
    qemu("convert", "-O", "raw", "a.img", "theirs.raw")
    assert digest("ours.raw") == digest("theirs.raw")


def test_a_snapshots_tables(full, cairn, qemu):
    """Only the snapshot is cut: it is refused, and the disk as it is now is read."""
    qemu("create", "-f", "qcow2", "-o", "cluster_size=512", "a.qcow2", "8M")
    cairn("io", "-c", "write -P 5 0 512", "a.qcow2")
    cairn("snapshot", "-c", "one", "a.qcow2")
    cairn("io", "-c", "write -P 6 0 512", "a.qcow2")
    want = cairn("hash", "a.qcow2").out
    size = os.path.getsize("a.qcow2")
    refused = 0
    for place in range(512 * (size // 512), 2048, -512):
        os.truncate("a.qcow2", place)
        now, then = (cairn("hash", *words, "a.qcow2", ok=False) for words in ([], ["-l", "one"]))
        assert now.code == 1 or now.out == want
        if then.code == 0:
            cairn("convert", "-l", "one", "-O", "raw", "--overwrite", "a.qcow2", "out.raw")
            assert open("out.raw", "rb").read(512) == b"\5" * 512
        refused += then.code
    assert refused


# --- writing ---


@pytest.mark.parametrize(
    "kind", ["qcow2", "small", "extended", "qcow", "qed", "vdi", "vmdk", "parallels", "vpc", "vhdx"]
)
def test_a_new_cluster_does_not_hide_what_is_missing(make, cairn, kind):
    fmt = make(kind)
    os.truncate("a.img", os.path.getsize("a.img") * 6 // 10 // 65536 * 65536)
    before = digest("a.img")
    for command in ("write -P 5 7M 4k", "write -z 7M 1M", "discard 0 1M"):
        done = cairn("io", "-f", fmt, "-c", command, "-c", "flush", "a.img", ok=False)
        assert digest("a.img") == before or command != "write -P 5 7M 4k"
        if command == "write -P 5 7M 4k":
            assert done.code == 1 or "failed" in done.out + done.err
            assert CUT in done.out + done.err or kind in ("qed", "vmdk", "vpc", "vhdx")
    assert cairn("hash", "-f", fmt, "a.img", ok=False).code == 1


@pytest.mark.parametrize(
    "words",
    [
        ["resize", "a.img", "+1M"],
        ["snapshot", "-c", "s", "a.img"],
        ["amend", "-o", "lazy_refcounts=on", "a.img"],
        ["bitmap", "--add", "a.img", "b"],
        ["commit", "top.qcow2"],
        ["rebase", "-b", "", "a.img"],
        ["serve", "--socket", "s.sock", "a.img"],
    ],
)
def test_a_cut_qcow2_is_not_opened_for_writing(make, cairn, qemu, words):
    make("qcow2")
    qemu("create", "-q", "-f", "qcow2", "-b", "a.img", "-F", "qcow2", "top.qcow2")
    cairn("io", "-c", "write 0 64k", "top.qcow2")
    os.truncate("a.img", 3 * MIB)
    before = digest("a.img")
    done = cairn(*words, ok=False, timeout=20)
    assert done.code == 1 and CUT in done.err and "--salvage" in done.err
    assert digest("a.img") == before


def test_what_only_a_snapshot_has_is_not_hidden_either(full, cairn, qemu, qemu_io):
    qemu("create", "-f", "qcow2", "a.qcow2", "8M")
    qemu_io("a.qcow2", "write 0 7M", "discard 0 1M")
    qemu("snapshot", "-c", "one", "a.qcow2")
    qemu_io("a.qcow2", "discard 1M 6M")
    os.truncate("a.qcow2", 3 * MIB)
    done = cairn("io", "-c", "write 6M 64k", "a.qcow2", ok=False)
    assert done.code == 1 and CUT in done.err


def test_clusters_that_nobody_uses_may_be_missing(cairn, folder, qemu):
    """What a crash leaves: counted, but in no table."""
    qemu("create", "-f", "qcow2", "a.qcow2", "8M")
    cairn("io", "-c", "write 0 64k", "a.qcow2")
    with open("a.qcow2", "r+b") as image:
        image.seek(0x20000 + 2 * 60)
        image.write(b"\0\1")
    assert os.path.getsize("a.qcow2") < 60 * 65536
    cairn("io", "-c", "write 1M 64k", "a.qcow2")
    cairn("check", "-r", "leaks", "a.qcow2")


def test_a_cut_data_file_is_not_lengthened(full, cairn, qemu):
    qemu("convert", "-O", "qcow2", "-o", "data_file=data.raw", full, "a.qcow2")
    os.truncate("data.raw", 3 * MIB)
    done = cairn("io", "-c", "write 7M 4k", "a.qcow2", ok=False)
    assert (
        done.code == 1
        and f"data.raw: the data of the disk at offset 3145728 is past the end of the file (3145728 bytes); {CUT}"
        in done.err
    )
    assert os.path.getsize("data.raw") == 3 * MIB


def test_qemus_name_writes_as_qemu_does(make, full):
    make("qcow2")
    os.truncate("a.img", 3 * MIB)
    shutil.copy("a.img", "b.img")
    link = CAIRN.parent / "compat" / "qemu-io"
    subprocess.run(
        [link, "-f", "qcow2", "-c", "write 7M 4k", "a.img"], check=True, capture_output=True
    )
    subprocess.run(
        ["qemu-io", "-f", "qcow2", "-c", "write 7M 4k", "b.img"], check=True, capture_output=True
    )


# --- salvage ---


@pytest.mark.parametrize(
    "kind", ["vhdx", "vpc", "qcow2", "small", "qed", "vdi", "vmdk", "parallels"]
)
@pytest.mark.parametrize("share", [6, 9])
def test_salvage_opens_what_is_cut(make, full, cairn, ours, kind, share):
    fmt = make(kind)
    os.truncate("a.img", os.path.getsize("a.img") * share // 10 // 512 * 512)
    done = cairn("convert", "-f", fmt, "-O", "raw", "--salvage", "a.img", "out.raw")
    assert "bytes became zeroes" in done.err
    left, whole = open("out.raw", "rb").read(), open(full, "rb").read()
    assert len(left) == len(whole) and left != whole
    for at in range(0, len(left), 512):
        assert left[at : at + 512] in (whole[at : at + 512], bytes(512)), at
    assert left[:65536] == whole[:65536]
    if kind in ("vhdx", "vpc"):
        assert (
            ours("convert", "-f", fmt, "-O", "raw", "--salvage", "a.img", "b.raw", ok=False).code
            == 1
        )


def test_salvage_of_a_large_disk_without_its_table(folder, cairn, qemu):
    """What is lost in one piece is found out in one step."""
    qemu("create", "-q", "-f", "vpc", "a.vhd", "2G")
    cairn("io", "-f", "vpc", "-c", "write -P 5 0 4k", "a.vhd")
    os.truncate("a.vhd", 2048)
    assert cairn("convert", "-f", "vpc", "-O", "qcow2", "a.vhd", "out.qcow2", ok=False).code == 1
    cairn("convert", "-f", "vpc", "-O", "qcow2", "--salvage", "a.vhd", "out.qcow2")


def test_salvage_goes_on_without_a_bitmap(make, full, cairn):
    make("qcow2")
    cairn("bitmap", "--add", "a.img", "b")
    cairn("io", "-c", "write -P 1 0 4k", "a.img")
    whole = cairn("hash", "a.img").out
    size = os.path.getsize("a.img")
    while cairn("hash", "a.img", ok=False).code == 0:
        size -= 4096
        os.truncate("a.img", size)
    cairn("convert", "--salvage", "-O", "raw", "a.img", "out.raw")
    assert cairn("hash", "-f", "raw", "out.raw").out.split()[0] == whole.split()[0]


def test_a_fixed_vhd_without_its_footer(full, cairn, qemu):
    qemu("convert", "-O", "vpc", "-o", "subformat=fixed", full, "a.vhd")
    os.truncate("a.vhd", 4 * MIB)
    assert "-f raw" in cairn("hash", "-f", "vpc", "a.vhd", ok=False).err


# --- what others see ---


def test_serve_and_mount_say_so(make, full, cairn, mount):  # noqa: F811
    make("qcow2")
    os.truncate("a.img", 3 * MIB)
    one = mount("a.img", "file")
    with open("file", "rb") as image:
        assert image.read(MIB) == open(full, "rb").read(MIB)
        image.seek(5 * MIB + 65536)
        with pytest.raises(OSError):
            image.read(4096)
    one.end()
    server = subprocess.Popen(
        [CAIRN, "serve", "--read-only", "--socket", os.path.abspath("s"), "a.img"],
        stderr=subprocess.PIPE,
    )
    try:
        uri = f"nbd+unix:///?socket={os.path.abspath('s')}"
        for _ in range(100):
            if os.path.exists("s"):
                break
            subprocess.run(["sleep", "0.05"])
        done = cairn("convert", "-O", "raw", uri, "out.raw", ok=False)
        assert done.code == 1 and not os.path.exists("out.raw")
    finally:
        server.terminate()
        server.communicate()


@pytest.fixture
def lazy(full):
    """The same disk in formats that only others write."""
    disk = open(full, "rb").read()

    def image(kind):
        if kind == "bochs":
            subprocess.run(
                ["bximage", "-q", "-func=convert", "-imgmode=growing", full, "a.bochs"],
                check=True,
                capture_output=True,
            )
        elif kind == "cloop":
            write_cloop("a.cloop", disk, 65536)
        else:
            kinds = itertools.cycle([dmg_writer.ZLIB, dmg_writer.RAW, dmg_writer.BZIP2])
            chunks = [(next(kinds), disk[at : at + 65536]) for at in range(0, len(disk), 65536)]
            with open("a.dmg", "wb") as out:
                out.write(dmg_writer.image([(0, chunks)], resources=True, data_start=0)[0])
        return f"a.{kind}"

    return image


@pytest.mark.parametrize("kind", ["bochs", "cloop", "dmg"])
def test_formats_that_are_only_read(lazy, cairn, kind):
    name = lazy(kind)
    want = cairn("hash", "-f", kind, name).out.split()[0]
    size = os.path.getsize(name)
    for place in (size - 512, size - 65536, size // 2, size // 4):
        os.truncate(name, place)
        read, check = cairn("hash", "-f", kind, name, ok=False), cairn(
            "check", "-f", kind, name, ok=False
        )
        assert read.code == 1 or read.out.split()[0] == want
        assert check.code != 0 or read.code == 0


def test_a_cut_appliance(full, cairn, qemu):
    qemu("convert", "-O", "vmdk", "-o", "subformat=streamOptimized", full, "d.vmdk")
    disk = open("d.vmdk", "rb").read()
    with tarfile.open("a.ova", "w", format=tarfile.USTAR_FORMAT) as out:
        for name, data in (("vm.ovf", ovf("d.vmdk", 8 * MIB)), ("d.vmdk", disk)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    cairn("compare", "-f", "raw", full, "a.ova")
    for place in (len(disk) // 2, len(disk) - 4096, 2048):
        os.truncate("a.ova", place)
        for verb in ("hash", "check"):
            assert cairn(verb, "a.ova", ok=False).code != 0, (verb, place)
        assert cairn("convert", "-O", "raw", "a.ova", "out.raw", ok=False).code == 1


def test_an_appliance_with_a_cut_disk(full, cairn, qemu):
    qemu("convert", "-O", "vmdk", "-o", "subformat=streamOptimized", full, "d.vmdk")
    os.truncate("d.vmdk", 3 * MIB)
    with open("vm.ovf", "wb") as out:
        out.write(ovf("d.vmdk", 8 * MIB))
    assert cairn("convert", "-O", "raw", "vm.ovf", "out.raw", ok=False).code == 1

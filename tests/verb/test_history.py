"""convert --all-snapshots: an image moves together with its internal snapshots."""
import os
import struct
import subprocess

import pytest

pytestmark = [pytest.mark.any_engine, pytest.mark.words]

NAMES = ("base system", "second", "1", "shrunk")


@pytest.fixture
def history(folder, qemu, qemu_io):
    """Four states and the present, with sizes, zeroes, compressed clusters and a date of their own."""
    qemu("create", "-q", "-f", "qcow2", "-o", "cluster_size=16k", "a.qcow2", "6M")
    qemu_io("a.qcow2", "write -P 1 0 2M", "write -c -P 2 2M 64k", "write -P 9 5M 100k")
    qemu("snapshot", "-c", NAMES[0], "a.qcow2")
    qemu_io(
        "a.qcow2",
        "write -P 3 100k 5k",
        "write -z -u 1M 512k",
        "write -z 1792k 64k",
        "discard 2M 64k",
    )
    qemu("snapshot", "-c", NAMES[1], "a.qcow2")
    qemu("resize", "-q", "a.qcow2", "9M")
    qemu_io("a.qcow2", "write -P 4 8M 1M", "write -P 5 1M 16k")
    qemu("snapshot", "-c", NAMES[2], "a.qcow2")
    qemu("resize", "-q", "--shrink", "a.qcow2", "4M")
    qemu("snapshot", "-c", NAMES[3], "a.qcow2")
    qemu("resize", "-q", "a.qcow2", "5M")
    qemu_io("a.qcow2", "write -P 6 3M 64k")
    return folder


def table(image):
    """What the snapshot table says, without places."""
    data = open(image, "rb").read()
    count, at = struct.unpack_from(">IQ", data, 60)
    rows = []
    for _ in range(count):
        ids, names = struct.unpack_from(">HH", data, at + 12)
        extra = struct.unpack_from(">I", data, at + 36)[0]
        end = at + 40 + extra + ids + names
        rows.append((data[at + 16 : at + 36], data[at + 40 : end]))
        at = (end + 7) // 8 * 8
    return rows


def states(qemu, image, folder):
    """The disk at every snapshot and now, read by QEMU from a copy."""
    seen = []
    for row in [None] + qemu("info", "--output=json", image).json().get("snapshots", []):
        subprocess.run(["cp", "--sparse=always", image, "look.qcow2"], check=True)
        if row is not None:
            qemu("snapshot", "-a", row["id"], "look.qcow2")
        qemu("convert", "-O", "raw", "look.qcow2", "look.raw")
        seen.append(open("look.raw", "rb").read())
    return seen


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["-c"],
        ["-o", "cluster_size=64k"],
        ["-o", "cluster_size=16k,extended_l2=on"],
        ["-W", "-m", "16"],
        ["-o", "cluster_size=512", "--verify"],
    ],
    ids=str,
)
def test_every_state_is_there(history, cairn, qemu, words):
    before = open("a.qcow2", "rb").read()
    told = cairn("convert", "--all-snapshots", *words, "a.qcow2", "b.qcow2")
    assert ("Verified" in told.out) == ("--verify" in words)
    qemu("check", "b.qcow2")
    cairn("check", "b.qcow2")
    assert table("a.qcow2") == table("b.qcow2") and len(table("b.qcow2")) == len(NAMES)
    assert qemu("snapshot", "-l", "a.qcow2").out == qemu("snapshot", "-l", "b.qcow2").out
    assert states(qemu, "a.qcow2", history) == states(qemu, "b.qcow2", history)
    assert open("a.qcow2", "rb").read() == before


def test_states_share_what_they_shared(folder, cairn, qemu, qemu_io):
    qemu("create", "-q", "-f", "qcow2", "a.qcow2", "64M")
    qemu_io("a.qcow2", "write -P 7 0 32M")
    for i in range(20):
        qemu("snapshot", "-c", f"s{i}", "a.qcow2")
        qemu_io("a.qcow2", f"write -P {i + 1} {i}M 64k")
    cairn("convert", "--all-snapshots", "a.qcow2", "b.qcow2")
    qemu("check", "b.qcow2")
    assert os.stat("b.qcow2").st_blocks <= os.stat("a.qcow2").st_blocks * 1.1
    qemu("convert", "-l", "snapshot.name=s7", "-O", "raw", "a.qcow2", "a.raw")
    qemu("convert", "-l", "snapshot.name=s7", "-O", "raw", "b.qcow2", "b.raw")
    assert open("a.raw", "rb").read() == open("b.raw", "rb").read()


def test_the_machine_comes_along(folder, cairn, qemu, qemu_io):
    """Written as a machine's state by our io verb, sealed into a snapshot, moved with other clusters."""
    qemu("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "a.qcow2", "5M")
    qemu_io("a.qcow2", "write -P 1 0 1M")
    qemu("snapshot", "-c", "off", "a.qcow2")
    state = bytes(range(256)) * 4000 + bytes(50000) + b"end of the machine"
    (folder / "state.bin").write_bytes(state + bytes(-len(state) % 512))
    cairn(
        "io",
        "-f",
        "qcow2",
        "-c",
        f"write -b -s state.bin 0 {(len(state) + 511) // 512 * 512}",
        "a.qcow2",
    )
    qemu("snapshot", "-c", "on", "a.qcow2")
    image = bytearray(open("a.qcow2", "rb").read())
    at = struct.unpack_from(">Q", image, 64)[0]
    ids, names = struct.unpack_from(">HH", image, at + 12)
    at = (at + 40 + struct.unpack_from(">I", image, at + 36)[0] + ids + names + 7) // 8 * 8
    struct.pack_into(">QI", image, at + 24, 3600 * 10**9, len(state))
    struct.pack_into(">Q", image, at + 40, len(state))
    open("a.qcow2", "wb").write(image)
    cairn("convert", "--all-snapshots", "-o", "cluster_size=64k", "a.qcow2", "b.qcow2")
    qemu("check", "b.qcow2")
    assert table("a.qcow2") == table("b.qcow2")
    assert qemu("snapshot", "-l", "a.qcow2").out == qemu("snapshot", "-l", "b.qcow2").out
    # It left the disk with the snapshot, and comes back with it.
    cairn("io", "-f", "qcow2", "-c", "read -b -P 0 0 1M", "b.qcow2")
    qemu("snapshot", "-a", "on", "b.qcow2")
    cairn("io", "-f", "qcow2", "-c", "read -b -P 0 1024000 48k", "b.qcow2")
    assert cairn("io", "-f", "qcow2", "-c", "read -b -P 0 0 512", "b.qcow2", ok=False).code == 1
    # A table that promises more than there is.
    struct.pack_into(">Q", image, at + 40, 1 << 61)
    open("a.qcow2", "wb").write(image)
    cairn("convert", "--all-snapshots", "a.qcow2", "c.qcow2", timeout=20)
    qemu("check", "c.qcow2")
    struct.pack_into(">Q", image, at + 40, (1 << 63) + 5)
    open("a.qcow2", "wb").write(image)
    failed = cairn("convert", "--all-snapshots", "a.qcow2", "d.qcow2", ok=False, timeout=20)
    assert failed.code == 1 and "'on'" in failed.err and not os.path.exists("d.qcow2")


def test_bitmaps_come_along(history, cairn, qemu):
    qemu("bitmap", "--add", "a.qcow2", "b0")
    subprocess.run(
        ["qemu-io", "-f", "qcow2", "-c", "write 0 1M", "a.qcow2"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    cairn("convert", "--all-snapshots", "--bitmaps", "a.qcow2", "b.qcow2")
    qemu("check", "b.qcow2")

    def bitmaps(name):
        return qemu("info", "--output=json", name).json()["format-specific"]["data"]["bitmaps"]

    assert bitmaps("a.qcow2") == bitmaps("b.qcow2") and table("a.qcow2") == table("b.qcow2")


def test_overlays_and_encrypted_targets(folder, cairn, qemu, qemu_io):
    """Whole disks are copied, what lies below included."""
    (folder / "base.raw").write_bytes(os.urandom(1 << 20))
    qemu("create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "a.qcow2", "2M")
    qemu("snapshot", "-c", "clean", "a.qcow2")
    qemu_io("a.qcow2", "write -P 4 300k 200k", "write -P 5 1900k 20k")
    qemu("snapshot", "-c", "dirty", "a.qcow2")
    qemu("snapshot", "-a", "clean", "a.qcow2")
    (folder / "key").write_text("geheim")
    secret = ["--object", "secret,id=s0,file=key"]
    cairn(
        "convert",
        *secret,
        "--all-snapshots",
        "-o",
        "encrypt.format=luks,encrypt.key-secret=s0,encrypt.iter-time=10",
        "a.qcow2",
        "b.qcow2",
    )
    cairn("convert", "--all-snapshots", "a.qcow2", "c.qcow2")
    options = "driver=qcow2,file.filename=b.qcow2,encrypt.key-secret=s0"
    qemu("check", *secret, "--image-opts", options)
    for name in ("clean", "dirty"):
        for words, out in (
            (["-f", "qcow2", "a.qcow2"], "a"),
            ([*secret, "--image-opts", options], "b"),
            (["c.qcow2"], "c"),
        ):
            qemu("convert", "-l", name, "-O", "raw", *words, out + ".raw")
        assert len({open(out + ".raw", "rb").read() for out in "abc"}) == 1
    assert "backing-filename" not in qemu("info", "--output=json", "c.qcow2").json()


@pytest.mark.parametrize(
    "words, told",
    [
        (["a.qcow2", "b.raw"], "'raw' keeps no internal snapshots"),
        (["-O", "vmdk", "a.qcow2", "b.vmdk"], "'vmdk' keeps no internal snapshots"),
        (["-l", "second", "a.qcow2", "b.qcow2"], "-l cannot be used"),
        (["-n", "a.qcow2", "b.qcow2"], "-n cannot be used"),
        (["-S", "0", "a.qcow2", "b.qcow2"], "-S cannot be used"),
        (["--hash", "sha256", "a.qcow2", "b.qcow2"], "--hash cannot be used"),
        (["a.qcow2", "a.qcow2", "b.qcow2"], "one source"),
        (["-o", "data_file=d.raw", "a.qcow2", "b.qcow2"], "external data file"),
        (["-B", "x", "-F", "raw", "a.qcow2", "b.qcow2"], "-B cannot be used"),
        (
            ["-o", "backing_file=x,backing_fmt=raw", "a.qcow2", "b.qcow2"],
            "cannot have a backing file",
        ),
        (["-o", "compat=0.10", "a.qcow2", "b.qcow2"], "v2 image which has snapshots"),
        (["-o", "refcount_bits=1", "a.qcow2", "b.qcow2"], "'base system'"),
    ],
    ids=str,
)
def test_refusals(history, cairn, words, told):
    done = cairn("convert", "--all-snapshots", *words, ok=False)
    assert done.code == 1 and told in done.err, done.err
    assert sorted(path.name for path in history.iterdir()) == ["a.qcow2"]


def test_it_is_no_option_of_qemu_img(history, ours):
    assert (
        ours("convert", "--all-snapshots", "-O", "qcow2", "a.qcow2", "b.qcow2", ok=False).code == 1
    )


def test_damage_is_told(history, cairn):
    image = bytearray(open("a.qcow2", "rb").read())
    at = struct.unpack_from(">Q", image, 64)[0]
    for where, value, told in (
        (at, 12345, "Snapshot L1 table offset invalid"),
        (at + 48, 12345, "impossible disk size"),
        (at + 48, 1 << 62, "impossible disk size"),
    ):
        broken = bytearray(image)
        struct.pack_into(">Q", broken, where, value)
        open("broken.qcow2", "wb").write(broken)
        done = cairn("convert", "--all-snapshots", "broken.qcow2", "b.qcow2", ok=False)
        assert done.code == 1 and told in done.err and "base system" in done.err, done.err
        assert not os.path.exists("b.qcow2")


def test_images_without_snapshots(folder, cairn, qemu, qemu_io):
    (folder / "a.raw").write_bytes(b"x" * 70000 + bytes(58000))
    cairn("convert", "--all-snapshots", "-f", "raw", "a.raw", "b.qcow2")
    qemu("compare", "-f", "raw", "-F", "qcow2", "a.raw", "b.qcow2")

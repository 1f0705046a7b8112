"""cairn compact: a qcow2 written anew, in place or to a new file."""
import os
import signal
import stat
import subprocess
import time

import pytest

from conftest import CAIRN, small_file_system, sparse_disk, traced


@pytest.fixture
def disk(folder, qemu, qemu_io):
    """An image with clusters that were given up, out of order, and a copy of what the guest sees."""
    qemu("create", "-q", "-f", "qcow2", "a.qcow2", "16M")
    qemu_io("a.qcow2", *(f"write -P {i + 1} {(37 * i) % 256 * 65536} 64k" for i in range(150)))
    qemu_io("a.qcow2", "write -z -u 0 4M")
    subprocess.run(["qemu-img", "convert", "-O", "raw", "a.qcow2", "a.raw"], check=True)
    return folder


def data_offsets(qemu, name):
    return [
        one["offset"]
        for one in qemu("map", "--output=json", name).json()
        if "offset" in one and one["data"]
    ]


def left_over(folder):
    return [path.name for path in folder.iterdir() if "cairn-" in path.name]


def test_in_place_is_smaller_in_order_and_the_same(disk, cairn, qemu):
    before = os.stat("a.qcow2")
    os.chmod("a.qcow2", 0o640)
    os.setxattr("a.qcow2", "user.note", b"kept")
    offsets = data_offsets(qemu, "a.qcow2")
    assert offsets != sorted(offsets)
    told = cairn("compact", "a.qcow2")
    assert " before, " in told.out
    qemu("compare", "a.raw", "a.qcow2")
    qemu("check", "a.qcow2")
    offsets = data_offsets(qemu, "a.qcow2")
    after = os.stat("a.qcow2")
    assert offsets == sorted(offsets) and after.st_blocks < before.st_blocks
    assert stat.S_IMODE(after.st_mode) == 0o640 and os.getxattr("a.qcow2", "user.note") == b"kept"
    assert left_over(disk) == []


@pytest.mark.parametrize(
    "options",
    [
        "compat=0.10",
        "compression_type=zstd",
        "refcount_bits=1,cluster_size=4k",
        "extended_l2=on",
        "lazy_refcounts=on,cluster_size=2M",
    ],
)
def test_options_stay(disk, cairn, qemu, options):
    qemu("convert", "-O", "qcow2", "-o", options, "a.raw", "b.qcow2")

    def shape():
        info = qemu("info", "--output=json", "b.qcow2").json()
        return info["cluster-size"], info["format-specific"], info["virtual-size"]

    before = shape()
    cairn("compact", "-q", "b.qcow2")
    assert shape() == before
    qemu("compare", "a.raw", "b.qcow2")


def test_options_change(disk, cairn, qemu):
    cairn(
        "compact",
        "-q",
        "-c",
        "-o",
        "cluster_size=128k,compression_type=zstd,compression_level=9",
        "a.qcow2",
        "new.qcow2",
    )
    info = qemu("info", "--output=json", "new.qcow2").json()
    assert (
        info["cluster-size"] == 131072
        and info["format-specific"]["data"]["compression-type"] == "zstd"
    )
    assert os.path.getsize("new.qcow2") < os.path.getsize("a.qcow2") / 4
    qemu("compare", "a.raw", "new.qcow2")
    done = cairn("compact", "-o", "backing_file=x", "a.qcow2", ok=False)
    assert done.code == 1 and "cannot be changed" in done.err
    assert "Invalid parameter" in cairn("compact", "-o", "nope=1", "a.qcow2", ok=False).err
    assert left_over(disk) == []


@pytest.mark.parametrize("cluster", ["", "cluster_size=128k", "cluster_size=16k"])
def test_compressed_clusters_stay_compressed(folder, cairn, qemu, qemu_io, cluster):
    sparse_disk("a.raw", 6 << 20, pieces=60)
    qemu("convert", "-c", "-O", "qcow2", "a.raw", "c.qcow2")
    qemu_io("c.qcow2", "write -P 5 1M 64k", "write -P 6 3M 4k")
    qemu("convert", "-O", "raw", "c.qcow2", "c.raw")

    def compressed():
        return qemu("check", "--output=json", "c.qcow2").json().get("compressed-clusters", 0)

    before = compressed()
    words = ["-o", cluster] if cluster else []
    cairn("compact", "-q", *words, "c.qcow2")
    qemu("compare", "c.raw", "c.qcow2")
    qemu("check", "c.qcow2")
    assert compressed() > 0 and (cluster or compressed() >= before - 1)


@pytest.mark.parametrize("words", [[], ["-c"], ["-o", "cluster_size=128k"]], ids=str)
def test_overlays_keep_what_lies_below(folder, cairn, qemu, qemu_io, words):
    sparse_disk("base.raw", 4 << 20, pieces=30)
    os.mkdir("other")
    qemu("create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "over.qcow2", "6M")
    qemu_io(
        "over.qcow2",
        "write -P 1 2M 10k",
        "write -z 1M 128k",
        "write -P 4 5M 1k",
        "write -z 100k 64k",
    )
    qemu("convert", "-O", "raw", "over.qcow2", "over.raw")
    cairn("compact", "-q", *words, "over.qcow2", "other/new.qcow2")
    cairn("compact", "-q", *words, "over.qcow2")
    for name in ("over.qcow2", "other/new.qcow2"):
        qemu("compare", "over.raw", name)
        qemu("check", name)
        info = qemu("info", "--output=json", name).json()
        assert os.path.samefile(
            os.path.join(os.path.dirname(name), info["backing-filename"]), "base.raw"
        )
        assert info["backing-filename-format"] == "raw" and info["actual-size"] < 1 << 20
    assert qemu("info", "--output=json", "over.qcow2").json()["backing-filename"] == "base.raw"


def test_what_would_be_lost_is_refused(disk, cairn, qemu):
    def refused(name, *words):
        before = (disk / name).read_bytes()
        done = cairn("compact", name, ok=False)
        assert done.code == 1 and (disk / name).read_bytes() == before and left_over(disk) == []
        for word in words:
            assert word in done.err

    refused("a.raw", "only qcow2", "cairn convert")
    qemu("create", "-q", "-f", "qcow2", "-o", "data_file=d.raw", "d.qcow2", "1M")
    refused("d.qcow2", "'d.qcow2'")
    os.link("a.qcow2", "second.qcow2")
    refused("a.qcow2", "hard links")
    os.unlink("second.qcow2")
    qemu("bitmap", "--add", "a.qcow2", "b0")
    subprocess.run(["qemu-io", "-c", "abort", "a.qcow2"], capture_output=True)
    refused("a.qcow2", "inconsistent bitmap 'b0'")


def views(qemu, image, words=()):
    """The disk now and at every snapshot."""
    names = [
        row["name"] for row in qemu("info", "--output=json", image).json().get("snapshots", [])
    ]
    seen = {}
    for name in [None, *names]:
        source = [*words, image] if not words else list(words)
        qemu(
            "convert",
            *(["-l", f"snapshot.name={name}"] if name else []),
            "-O",
            "raw",
            *source,
            "view.raw",
        )
        seen[name] = open("view.raw", "rb").read()
    return seen


@pytest.mark.parametrize(
    "words, in_place", [([], True), (["-c"], False), (["-o", "cluster_size=16k"], True)], ids=str
)
def test_snapshots_and_bitmaps_stay(disk, cairn, qemu, qemu_io, words, in_place):
    for i in range(4):
        qemu("snapshot", "-c", f"s{i}", "a.qcow2")
        qemu_io("a.qcow2", f"write -P {i + 1} {i}M 300k", "write -z -u 9M 128k")
        # What was stored plain is compressed in the next one.
        subprocess.run(
            [
                "qemu-io",
                "-c",
                "open -o discard=unmap a.qcow2",
                "-c",
                "discard 12M 64k",
                "-c",
                f"write {'-c' if i % 2 else ''} -s a.raw 12M 64k",
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    qemu("bitmap", "--add", "-g", "32k", "a.qcow2", "b0")
    qemu("bitmap", "--add", "--disable", "a.qcow2", "off")
    qemu_io("a.qcow2", "write -P 9 6M 1M")
    qemu("snapshot", "-d", "s1", "a.qcow2")
    before, shown, disk_blocks = (
        views(qemu, "a.qcow2"),
        qemu("snapshot", "-l", "a.qcow2").out,
        os.stat("a.qcow2").st_blocks,
    )
    bitmaps = qemu("info", "--output=json", "a.qcow2").json()["format-specific"]["data"]["bitmaps"]
    cairn("compact", "-q", *words, *(["a.qcow2"] if in_place else ["a.qcow2", "new.qcow2"]))
    name = "a.qcow2" if in_place else "new.qcow2"
    qemu("check", name)
    assert views(qemu, name) == before and qemu("snapshot", "-l", name).out == shown
    assert (
        qemu("info", "--output=json", name).json()["format-specific"]["data"]["bitmaps"] == bitmaps
    )
    assert os.stat(name).st_blocks <= disk_blocks * 1.05 and left_over(disk) == []


@pytest.mark.parametrize("options", ["", "cluster_size=16k,extended_l2=on"])
def test_snapshots_of_an_overlay_leave_to_the_base_what_they_left(
    folder, cairn, qemu, qemu_io, options
):
    sparse_disk("base.raw", 4 << 20, pieces=30)
    qemu(
        "create",
        "-q",
        "-f",
        "qcow2",
        "-b",
        "base.raw",
        "-F",
        "raw",
        *(["-o", options] if options else []),
        "over.qcow2",
        "3M",
    )
    qemu("snapshot", "-c", "clean", "over.qcow2")
    qemu_io("over.qcow2", "write -P 1 2M 100k", "write -z 1M 128k", "write -P 3 70000 3000")
    qemu("snapshot", "-c", "dirty", "over.qcow2")
    qemu("snapshot", "-a", "clean", "over.qcow2")
    qemu("resize", "-q", "over.qcow2", "4M")
    qemu_io("over.qcow2", "write -P 7 0 10k")
    before, layers = views(qemu, "over.qcow2"), qemu("map", "--output=json", "over.qcow2").json()
    cairn("compact", "-q", "over.qcow2")
    qemu("check", "over.qcow2")
    assert views(qemu, "over.qcow2") == before

    def shape(rows):
        return [
            (row["start"], row["length"], row["depth"], row["zero"], row["data"]) for row in rows
        ]

    assert shape(qemu("map", "--output=json", "over.qcow2").json()) == shape(layers)
    # Seen at once when the base is another one.
    open("base.raw", "r+b").write(b"another base" * 1000)
    qemu("convert", "-l", "clean", "-O", "raw", "over.qcow2", "clean.raw")
    assert open("clean.raw", "rb").read(12000) == b"another base" * 1000
    refused = cairn("compact", "-q", "-o", "cluster_size=4k", "over.qcow2", ok=False)
    assert refused.code == 1 and "cluster_size" in refused.err


@pytest.mark.parametrize("kind", ["luks", "aes"])
def test_encryption_stays(folder, cairn, qemu, kind):
    """The same keys, the same passphrases, no new ones."""
    (folder / "one").write_text("the first")
    (folder / "two").write_text("the second")
    secrets = ["--object", "secret,id=s1,file=one", "--object", "secret,id=s2,file=two"]
    sparse_disk("a.raw", 5 << 20, pieces=40)
    options = (
        "encrypt.key-secret=s1,encrypt.format="
        + kind
        + (",encrypt.iter-time=10" if kind == "luks" else "")
    )
    qemu("convert", *secrets, "-O", "qcow2", "-o", options, "a.raw", "a.qcow2")
    opened = "driver=qcow2,file.filename={},encrypt.key-secret={}"
    if kind == "luks":
        qemu(
            "amend",
            *secrets,
            "--image-opts",
            opened.format("a.qcow2", "s1"),
            "-o",
            "encrypt.state=active,encrypt.new-secret=s2,encrypt.iter-time=10",
        )
    qemu("snapshot", *secrets, "-c", "one", "--image-opts", opened.format("a.qcow2", "s1"))
    call = [
        "qemu-io",
        *secrets,
        "--image-opts",
        opened.format("a.qcow2", "s1"),
        "-c",
        "write -P 5 1M 100k",
        "-c",
        "write -z 2M 1M",
    ]
    subprocess.run(call, check=True, stdout=subprocess.DEVNULL)
    crypt = qemu("info", "--output=json", "a.qcow2").json()["format-specific"]["data"]["encrypt"]
    before = views(qemu, "a.qcow2", [*secrets, "--image-opts", opened.format("a.qcow2", "s1")])
    assert cairn("compact", "-q", "a.qcow2", ok=False).code == 1
    for words, name in ((["a.qcow2", "new.qcow2"], "new.qcow2"), (["a.qcow2"], "a.qcow2"))[
        kind == "luks" :
    ]:
        cairn("compact", "-q", *secrets, "-o", "encrypt.key-secret=s1", *words)
        qemu("check", *secrets, "--image-opts", opened.format(name, "s1"))
        assert (
            qemu("info", "--output=json", name).json()["format-specific"]["data"]["encrypt"]
            == crypt
        )
        for secret in ("s1", "s2") if kind == "luks" else ("s1",):
            assert (
                views(qemu, name, [*secrets, "--image-opts", opened.format(name, secret)]) == before
            )
    told = cairn("compact", "-c", *secrets, "-o", "encrypt.key-secret=s1", "a.qcow2", ok=False)
    assert told.code == 1 and "do not go together" in told.err
    if kind == "luks":
        image = bytearray(open("a.qcow2", "rb").read())
        at = image.index(b"\x05\x37\xbe\x77") + 8
        image[at + 8 : at + 16] = (1 << 50).to_bytes(8, "big")
        open("broken.qcow2", "wb").write(image)
        told = cairn("compact", *secrets, "-o", "encrypt.key-secret=s1", "broken.qcow2", ok=False)
        assert told.code == 1 and "cannot be copied" in told.err and left_over(folder) == []


@pytest.mark.parametrize("raw", ["off", "on"])
def test_data_files_go_to_data_files(folder, cairn, qemu, qemu_io, raw):
    qemu(
        "create", "-q", "-f", "qcow2", "-o", f"data_file=d.raw,data_file_raw={raw}", "a.qcow2", "4M"
    )
    qemu_io("a.qcow2", "write -P 1 1M 1M", "write -P 2 3M 100k", "write -z 1M 64k")
    told = cairn("compact", "a.qcow2", "b.qcow2", ok=False)
    assert told.code == 1 and "-o data_file=" in told.err and not os.path.exists("b.qcow2")
    told = cairn("compact", "-o", "data_file=d.raw", "a.qcow2", "b.qcow2", ok=False)
    assert told.code == 1 and "must not exist" in told.err and not os.path.exists("b.qcow2")
    cairn("compact", "-q", "-o", "data_file=e.raw", "a.qcow2", "b.qcow2")
    qemu("compare", "a.qcow2", "b.qcow2")
    qemu("check", "b.qcow2")
    data = qemu("info", "--output=json", "b.qcow2").json()["format-specific"]["data"]
    assert data["data-file"] == "e.raw" and data["data-file-raw"] == (raw == "on")
    if raw == "on":
        qemu("compare", "-f", "raw", "-F", "qcow2", "e.raw", "b.qcow2")
    qemu("create", "-q", "-f", "qcow2", "plain.qcow2", "1M")
    assert (
        "in the image itself"
        in cairn("compact", "-o", "data_file=f.raw", "plain.qcow2", "g.qcow2", ok=False).err
    )


def test_wrong_words(disk, cairn):
    os.symlink("a.qcow2", "link.qcow2")
    assert "in place" in cairn("compact", "a.qcow2", "link.qcow2", ok=False).err
    (disk / "there").write_bytes(b"mine")
    assert "must not exist" in cairn("compact", "a.qcow2", "there", ok=False).err
    assert (disk / "there").read_bytes() == b"mine"
    assert cairn("compact", "missing.qcow2", ok=False).code == 1
    assert cairn("compact", "a.qcow2", "no/such/folder", ok=False).code == 1
    # A link stays a link; what it names is compacted.
    cairn("compact", "-q", "link.qcow2")
    assert os.path.islink("link.qcow2") and left_over(disk) == []


def test_an_image_in_use_is_left_alone(disk, cairn, qemu):
    writer = subprocess.Popen(["qemu-io", "a.qcow2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        writer.stdout.read(8)
        done = cairn("compact", "a.qcow2", ok=False)
        assert done.code == 1 and 'Failed to get "write" lock' in done.err or "lock" in done.err
    finally:
        writer.communicate(b"quit\n", timeout=10)
    assert left_over(disk) == []
    qemu("compare", "a.raw", "a.qcow2")


def test_no_room(disk, cairn, qemu, tmp_path):
    with small_file_system(tmp_path / "small", "20m") as small:
        subprocess.run(["cp", "--sparse=always", "a.qcow2", small / "a.qcow2"], check=True)
        before = (small / "a.qcow2").read_bytes()
        (small / "filler").write_bytes(
            bytes((20 << 20) - (small / "a.qcow2").stat().st_blocks * 512 - (2 << 20))
        )
        done = cairn("compact", small / "a.qcow2", ok=False)
        assert done.code == 1 and "are needed" in done.err
        assert (small / "a.qcow2").read_bytes() == before and left_over(small) == []


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_changes_nothing(folder, qemu, which):
    with open("big.raw", "wb") as out:
        for i in range(120):
            out.write(bytes([i % 255 + 1]) * (1 << 20))
    qemu("convert", "-O", "qcow2", "big.raw", "big.qcow2")
    inode = os.stat("big.qcow2").st_ino
    process = subprocess.Popen(
        [CAIRN, "compact", "-c", "-o", "compression_level=12", "big.qcow2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    for _ in range(200):
        if left_over(folder):
            break
        time.sleep(0.01)
    time.sleep(0.1)
    process.send_signal(which)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + which and b"cancelled" in err
    assert left_over(folder) == [] and os.stat("big.qcow2").st_ino == inode
    qemu("compare", "big.raw", "big.qcow2")


# --- targets that exist, backing files by relative names ---


def test_overwrite_replaces_the_new_file(disk, cairn, qemu):
    qemu("create", "-q", "-f", "qcow2", "old.qcow2", "1M")
    os.chmod("old.qcow2", 0o640)
    before = (disk / "old.qcow2").read_bytes()
    told = cairn("compact", "a.qcow2", "old.qcow2", ok=False)
    assert (
        told.code == 1 and "--overwrite" in told.err and (disk / "old.qcow2").read_bytes() == before
    )
    cairn("compact", "-q", "--overwrite", "a.qcow2", "old.qcow2")
    qemu("compare", "a.raw", "old.qcow2")
    qemu("check", "old.qcow2")
    assert os.stat("old.qcow2").st_mode & 0o777 == 0o640 and left_over(disk) == []
    cairn("compact", "-q", "--overwrite", "a.qcow2", "new.qcow2")
    qemu("compare", "a.raw", "new.qcow2")
    assert cairn("compact", "--overwrite", "a.qcow2", ok=False).code == 1


def test_overwrite_keeps_the_old_file_until_the_end(disk, cairn, qemu):
    qemu("create", "-q", "-f", "qcow2", "old.qcow2", "1M")
    before = (disk / "old.qcow2").read_bytes()
    told = cairn("compact", "--overwrite", "-o", "cluster_size=3", "a.qcow2", "old.qcow2", ok=False)
    assert told.code == 1 and "is as it was" in told.err and "/proc/" not in told.err
    assert (disk / "old.qcow2").read_bytes() == before and left_over(disk) == []
    user = subprocess.Popen(["qemu-io", "old.qcow2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    user.stdout.read(8)
    told = cairn("compact", "--overwrite", "a.qcow2", "old.qcow2", ok=False)
    user.communicate(b"quit\n")
    assert told.code == 1 and (disk / "old.qcow2").read_bytes() == before


@pytest.mark.parametrize(
    "words",
    [
        ["a/over.qcow2"],
        ["--overwrite", "a/over.qcow2", "a/new.qcow2"],
        ["--overwrite", "a/over.qcow2", "b/new.qcow2"],
    ],
    ids=" ".join,
)
def test_a_relative_backing_file_takes_no_name_beside_the_image(disk, cairn, qemu, qemu_io, words):
    """What is written has no name until it is complete: nothing is left by a program that is killed."""
    os.mkdir("a")
    os.mkdir("b")
    os.rename("a.qcow2", "a/base.qcow2")
    qemu("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "a/over.qcow2")
    qemu_io("a/over.qcow2", *(f"write -P 9 {i * 131072} 64k" for i in range(30)), "discard 0 1M")
    qemu("convert", "-O", "raw", "a/over.qcow2", "want.raw")
    for name in words[2:]:
        qemu("create", "-q", "-f", "qcow2", name, "1M")
    assert "O_TMPFILE" in traced("openat", "compact", *words)
    qemu("compare", "want.raw", words[-1])
    assert (
        qemu("info", "--output=json", words[-1]).json()["backing-filename"]
        and left_over(disk / "a") == left_over(disk / "b") == []
    )

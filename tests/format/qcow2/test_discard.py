"""What discards leave of a qcow2 image and of its file: the pass-discard-* options and discard-no-unref, next to QEMU."""
import os
import struct
import subprocess

import pytest

from conftest import CAIRN

IO = {"qemu": ["qemu-io"], "ours": [str(CAIRN), "io"]}
IMG = {"qemu": ["qemu-img"], "ours": [str(CAIRN.parent / "compat" / "qemu-img")]}
PROGRAMS = ("qemu", "ours")


def l2_entries(image, count=16):
    """The first entries of the first L2 table, the places of data as "placed"."""
    data = open(image, "rb").read()
    l1 = struct.unpack_from(">Q", data, 40)[0]
    table = struct.unpack_from(">Q", data, l1)[0] & 0x00FFFFFFFFFFFE00
    if table == 0:
        return []
    entries = struct.unpack_from(f">{count}Q", data, table)
    return [(entry >> 62, entry & 1, (entry & 0x00FFFFFFFFFFFE00) != 0) for entry in entries]


def blocks(image):
    return os.stat(image).st_blocks * 512


def run(words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def prepare(name, qemu, qemu_io, options="cluster_size=64k"):
    qemu("create", "-q", "-f", "qcow2", "-o", options, name, "4M")
    qemu_io(name, "write -P 1 0 2M", "write -c -P 2 2M 64k", "write -z 192k 64k")


@pytest.mark.parametrize(
    "options",
    ["discard-no-unref=off", "discard-no-unref=on", "discard-no-unref=on,pass-discard-request=off"],
)
def test_no_unref_keeps_places(folder, qemu, qemu_io, options):
    """The table of the sheet: every kind of cluster, every kind of giving up."""
    found = {}
    for who in PROGRAMS:
        name = who + ".qcow2"
        prepare(name, qemu, qemu_io)
        before = blocks(name)
        run(
            [
                *IO[who],
                "--image-opts",
                "-c",
                "discard 0 256k",
                "-c",
                "write -z -u 512k 128k",
                "-c",
                "write -z 768k 64k",
                "-c",
                "discard 1M 4k",
                f"driver=qcow2,{options},discard=unmap,file.filename={name}",
            ]
        )
        qemu("check", name)
        qemu_io(
            name,
            "read -P 0 0 256k",
            "read -P 1 256k 256k",
            "read -P 0 512k 128k",
            "read -P 0 768k 64k",
            "read -P 1 1M 64k",
        )
        found[who] = l2_entries(name, 40), round((before - blocks(name)) / 65536)
    assert found["ours"] == found["qemu"]
    kept = [entry[2] for entry in found["ours"][0]]
    assert kept[0] == ("no-unref=on" in options)
    assert (found["ours"][1] >= 5) == ("request=off" not in options)
    # What was kept is written where it was.
    run(
        [
            *IO["ours"],
            "--image-opts",
            "-c",
            "write -P 7 0 64k",
            f"driver=qcow2,{options},discard=unmap,file.filename=ours.qcow2",
        ]
    )
    qemu("check", "ours.qcow2")
    qemu_io("ours.qcow2", "read -P 7 0 64k", "read -P 0 64k 64k")


def test_no_unref_leaves_snapshots_alone(folder, qemu, qemu_io):
    prepare("a.qcow2", qemu, qemu_io)
    qemu("snapshot", "-c", "one", "a.qcow2")
    run(
        [
            *IO["ours"],
            "--image-opts",
            "-c",
            "discard 0 512k",
            "-c",
            "write -z -u 512k 512k",
            "driver=qcow2,discard-no-unref=on,discard=unmap,file.filename=a.qcow2",
        ]
    )
    qemu("check", "a.qcow2")
    qemu_io("a.qcow2", "read -P 0 0 1M")
    qemu("snapshot", "-a", "one", "a.qcow2")
    qemu_io("a.qcow2", "read -P 1 0 192k", "read -P 1 256k 1M")


def test_no_unref_needs_version_3(folder, qemu):
    qemu("create", "-q", "-f", "qcow2", "-o", "compat=0.10", "a.qcow2", "1M")
    done = [
        subprocess.run(
            [
                *IO[who],
                "--image-opts",
                "-c",
                "read 0 512",
                "driver=qcow2,discard-no-unref=on,file.filename=a.qcow2",
            ],
            capture_output=True,
            text=True,
        )
        for who in PROGRAMS
    ]
    assert all(
        one.returncode == 1 and "only supported since qcow2 version 3" in one.stderr for one in done
    )


@pytest.mark.parametrize("value", ["on", "off", None])
def test_what_a_snapshot_gives_up(folder, qemu, qemu_io, value):
    """Deleted or replaced by applying: by default the file is told."""
    options = "driver=qcow2,file.filename={}" + (f",pass-discard-snapshot={value}" if value else "")
    for verb in ("-d", "-a"):
        freed = {}
        for who in PROGRAMS:
            name = who + ".qcow2"
            prepare(name, qemu, qemu_io)
            qemu("snapshot", "-c", "one", name)
            qemu_io(name, "write -P 3 0 1M")
            before = blocks(name)
            run([*IMG[who], "snapshot", verb, "one", "--image-opts", options.format(name)])
            qemu("check", name)
            qemu_io(
                name, "read -P 3 0 1M" if verb == "-d" else "read -P 1 0 192k", "read -P 1 1M 1M"
            )
            freed[who] = before - blocks(name)
            os.unlink(name)
        for who in PROGRAMS:
            assert (freed[who] >= 900 << 10) == (value != "off"), (verb, freed)
            assert value != "off" or freed[who] <= 0


@pytest.mark.parametrize("value", ["on", "off"])
def test_what_tables_leave(folder, qemu, value):
    """Refcount table, L1 table and the like when they moved."""
    qemu("create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", "a.qcow2", "1M")
    with open("a.qcow2", "r+b") as image:
        image.truncate(8 << 20)
        image.seek(6 << 20)
        image.write(bytes(8) + b"\1" * ((2 << 20) - 8))
    before = blocks("a.qcow2")
    run(
        [
            str(CAIRN),
            "resize",
            "-q",
            "--image-opts",
            f"driver=qcow2,pass-discard-other={value},file.filename=a.qcow2",
            "700G",
        ]
    )
    qemu("check", "a.qcow2")
    assert (before - blocks("a.qcow2") >= 1 << 20) == (value == "on")


def test_replaced_clusters_are_not_discarded(folder, qemu, qemu_io):
    """A copy-on-write leaves space that serves the next one: no hole is made for it."""
    prepare("a.qcow2", qemu, qemu_io)
    qemu("snapshot", "-c", "one", "a.qcow2")
    qemu_io("a.qcow2", "write -P 3 0 1M")
    before = blocks("a.qcow2")
    run(
        [
            *IO["ours"],
            "--image-opts",
            "-c",
            "write -P 4 2M 64k",
            "driver=qcow2,discard=unmap,file.filename=a.qcow2",
        ]
    )
    assert blocks("a.qcow2") >= before


def test_shrinking_always_tells(folder, qemu, qemu_io):
    prepare("a.qcow2", qemu, qemu_io)
    qemu_io("a.qcow2", "write -P 1 3M 1M", "write -P 2 0 64k")
    before = blocks("a.qcow2")
    run(
        [
            str(CAIRN),
            "resize",
            "-q",
            "--shrink",
            "--image-opts",
            "driver=qcow2,discard=ignore,file.filename=a.qcow2",
            "1M",
        ]
    )
    qemu("check", "a.qcow2")
    assert before - blocks("a.qcow2") >= 1900 << 10


@pytest.mark.parametrize("options", ["cluster_size=512", "cluster_size=512,refcount_bits=64"])
def test_shrinking_drops_refcount_blocks_without_use(folder, qemu, options):
    """In what order the disk was written does not matter: those that count only themselves go."""
    for program in PROGRAMS:
        name = f"{program}.qcow2"
        qemu("create", "-q", "-f", "qcow2", "-o", options, name, "16M")
        for at in (9, 3, 15, 0, 6, 12):
            run([*IO[program], "-c", f"write -P 1 {at}M 1M", name])
        run([*IMG[program], "resize", "-q", "--shrink", name, "2M"])
        qemu("check", name)
        data = open(name, "rb").read()
        (table,) = struct.unpack_from(">Q", data, 48)
        places = struct.unpack_from(f">{struct.unpack_from('>I', data, 56)[0] * 64}Q", data, table)
        assert all(any(data[place : place + 512]) for place in places if place != 0)
    assert os.path.getsize("ours.qcow2") <= os.path.getsize("qemu.qcow2")

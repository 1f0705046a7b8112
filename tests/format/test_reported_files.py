"""Files that other programs wrote and people could not open: snapshots of VirtualBox, old LUKS headers, key files, extents."""
import gzip
import io
import os
import shutil
import struct
import subprocess
import tarfile

import pytest

from report_cases import MIB, apple_map, old_luks, ovf, pattern, split_bundle, vbox_snapshot, vdi
from mounts import mount  # noqa: F401

pytestmark = pytest.mark.any_engine


def put(name, data):
    os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
    with open(name, "wb") as out:
        out.write(data)


# --- snapshots of VirtualBox ---


@pytest.mark.parametrize(
    "base, child",
    [
        ("base.vdi", "child.vdi"),
        ("base.vdi", "Snapshots/child.vdi"),
        ("Snapshots/base.vdi", "child.vdi"),
    ],
)
def test_a_vdi_snapshot_finds_its_parent(folder, cairn, base, child):
    os.mkdir("Snapshots")
    put("other.vdi", vdi(pattern(MIB))[0])
    put("expected.raw", vbox_snapshot(base, child))
    cairn("compare", "-f", "raw", "expected.raw", child)
    assert cairn("check", child).code == 0
    info = cairn("info", "--output=json", child).json()
    assert info["format-specific"]["data"]["subformat"] == "differencing"


def test_a_vdi_snapshot_takes_the_parent_that_is_named(folder, cairn):
    os.mkdir("far")
    put("expected.raw", vbox_snapshot("far/base.vdi", "child.vdi"))
    put("far/other.vdi", vdi(pattern(4 * MIB))[0])
    words = "driver=vdi,file.filename=child.vdi,backing.driver=vdi,backing.file.filename=far/"
    plain = "driver=raw,file.filename=expected.raw"
    cairn("compare", "--image-opts", plain, words + "base.vdi")
    failed = cairn("compare", "--image-opts", plain, words + "other.vdi", ok=False)
    assert "is another disk than the parent" in failed.err
    lost = cairn("convert", "child.vdi", "out.raw", ok=False)
    parent = cairn("info", "--output=json", "child.vdi").json()["format-specific"]["data"][
        "parent-uuid"
    ]
    assert lost.code == 1 and f"UUID {{{parent}}} was not found" in lost.err
    cairn("io", "-c", "write 0 4k", "far/base.vdi")
    with open("far/base.vdi", "r+b") as base:
        base.seek(408)
        base.write(b"changed since   ")
    assert (
        "was modified after this snapshot"
        in cairn("compare", "--image-opts", plain, words + "base.vdi", ok=False).err
    )


def test_info_follows_the_uuid_of_a_parent(folder, cairn):
    os.mkdir("Snapshots")
    vbox_snapshot("base.vdi", "Snapshots/child.vdi")
    chain = cairn("info", "--backing-chain", "--output=json", "Snapshots/child.vdi").json()
    assert [os.path.realpath(one["filename"]) for one in chain] == [
        os.path.realpath(name) for name in ("Snapshots/child.vdi", "base.vdi")
    ]
    assert "base.vdi" in cairn("info", "--backing-chain", "Snapshots/child.vdi").out
    os.remove("base.vdi")
    failed = cairn("info", "--backing-chain", "Snapshots/child.vdi", ok=False)
    assert failed.code == 1 and "was not found" in failed.err
    assert cairn("info", "Snapshots/child.vdi").code == 0


def test_a_parent_by_uuid_obeys_the_reference_policy(folder, cairn):
    vbox_snapshot("base.vdi", "child.vdi")
    failed = cairn("convert", "--untrusted", "child.vdi", "out.qcow2", ok=False)
    assert (
        failed.code == 1
        and "its parent with UUID {" in failed.err
        and "may not be opened here" in failed.err
    )


def test_a_vdi_snapshot_is_written(folder, cairn):
    seen = bytearray(vbox_snapshot("base.vdi", "child.vdi"))
    before = open("base.vdi", "rb").read()
    cairn(
        "io",
        "-c",
        "write -P 5 100k 4k",
        "-c",
        "write -P 6 3M 4k",
        "-c",
        "write -z 2M 1M",
        "-c",
        "discard 1M 1M",
        "child.vdi",
    )
    seen[100 << 10 : 104 << 10] = b"\5" * 4096
    seen[3 * MIB : 3 * MIB + 4096] = b"\6" * 4096
    seen[MIB : 3 * MIB] = bytes(2 * MIB)
    put("expected.raw", seen)
    cairn("compare", "-f", "raw", "expected.raw", "child.vdi")
    assert cairn("check", "child.vdi").code == 0
    assert open("base.vdi", "rb").read() == before
    assert "cannot be resized" in cairn("resize", "child.vdi", "8M", ok=False).err
    cairn("commit", "child.vdi")
    cairn("compare", "-f", "raw", "expected.raw", "base.vdi")


def test_qemus_name_refuses_vdi_snapshots_as_qemu_does(folder, ours, qemu):
    vbox_snapshot("base.vdi", "child.vdi")
    assert ours("info", "child.vdi", ok=False).err == qemu("info", "child.vdi", ok=False).err


def test_a_vmdk_snapshot_of_virtualbox_finds_its_parent_by_uuid(folder, cairn, qemu):
    uuid = "7a0f0a3c-2d75-4d9b-8a53-0d3a3f0a6b11"

    def edit(name, change):
        data = open(name, "rb").read()
        text = data[512 : 512 + 20 * 512].rstrip(b"\0")
        put(name, data[:512] + change(text).ljust(20 * 512, b"\0") + data[512 + 20 * 512 :])

    put("disk.raw", pattern(4 * MIB))
    qemu("convert", "-O", "vmdk", "disk.raw", "base.vmdk")
    edit("base.vmdk", lambda text: text + b'ddb.uuid.image="%s"\n' % uuid.encode())
    os.mkdir("Snapshots")
    qemu(
        "create",
        "-q",
        "-f",
        "vmdk",
        "-b",
        os.path.abspath("base.vmdk"),
        "-F",
        "vmdk",
        "Snapshots/child.vmdk",
    )
    edit(
        "Snapshots/child.vmdk",
        lambda text: b"\n".join(
            line for line in text.split(b"\n") if b"parentFileNameHint" not in line
        )
        + b'ddb.uuid.parent="%s"\n' % uuid.encode(),
    )
    cairn("compare", "-f", "raw", "disk.raw", "Snapshots/child.vmdk")
    chain = cairn("info", "--backing-chain", "--output=json", "Snapshots/child.vmdk").json()
    assert [os.path.basename(one["filename"]) for one in chain] == ["child.vmdk", "base.vmdk"]
    cairn("io", "-c", "write -P 9 1M 4k", "-c", "read -P 9 1M 4k", "Snapshots/child.vmdk")
    os.rename("base.vmdk", "Snapshots/renamed")
    cairn("io", "-c", "read -P 9 1M 4k", "-c", "read -v 0 16", "Snapshots/child.vmdk")
    os.remove("Snapshots/renamed")
    assert uuid in cairn("convert", "Snapshots/child.vmdk", "out.raw", ok=False).err


# --- LUKS ---


@pytest.fixture
def luks(folder):
    def make(name, key):
        with open(name, "wb") as image:
            image.truncate(3 * MIB)
        subprocess.run(
            [
                "cryptsetup",
                "luksFormat",
                "-q",
                "--type",
                "luks1",
                "--cipher",
                "aes-cbc-plain",
                "--key-size",
                "128",
                "--hash",
                "sha1",
                "--pbkdf-force-iterations",
                "1000",
                name,
                key,
            ],
            check=True,
        )
        return f"driver=luks,key-secret=s,file.filename={name}"

    put("pass.txt", b"correct horse")
    put("key.bin", bytes(range(120, 200)) + b"\0\n\xff")
    return make


def test_a_luks_header_of_old_cryptsetup_opens(luks, cairn, ours):
    whole = luks("whole.luks", "pass.txt")
    put("old.luks", old_luks(open("whole.luks", "rb").read()))
    for program in (cairn, ours):
        program(
            "compare",
            "--object",
            "secret,id=s,file=pass.txt",
            "--image-opts",
            whole,
            whole.replace("whole", "old"),
        )
    cairn(
        "io",
        "--object",
        "secret,id=s,file=pass.txt",
        "--image-opts",
        "-c",
        "write -P 3 0 64k",
        whole.replace("whole", "old"),
    )
    assert "overlapping" not in cairn("info", "old.luks").err


@pytest.mark.parametrize("definition", ["file=key.bin", "file=key.b64,format=base64"])
def test_a_key_file_of_any_bytes_opens_luks(luks, cairn, ours, definition):
    import base64

    put("key.b64", base64.b64encode(open("key.bin", "rb").read()))
    opts = luks("a.luks", "key.bin")
    secret = f"secret,id=s,{definition}"
    for program in (cairn, ours):
        program("convert", "--object", secret, "--image-opts", opts, "-O", "raw", "out.raw")
    cairn(
        "create",
        "-q",
        "--object",
        secret,
        "-f",
        "luks",
        "-o",
        "key-secret=s,iter-time=10",
        "b.luks",
        "1M",
    )
    subprocess.run(
        ["cryptsetup", "open", "--test-passphrase", "--key-file", "key.bin", "b.luks"], check=True
    )


# --- Apple partition maps ---


@pytest.mark.parametrize("block", [512, 2048])
def test_an_apple_partition_map_is_mounted(mount, folder, block):  # noqa: F811
    disk = apple_map(block=block)
    put("apm.raw", disk)
    one = mount("apm.raw", "parts", "--partitions", "-f", "raw")
    assert sorted(os.listdir("parts")) == ["disk", "p1", "p2", "p3"]
    assert open("parts/p2", "rb").read() == disk[64 * block : 64 * block + 4 * MIB]
    assert one.end()[0] == 0


def test_an_apple_partition_map_that_lies_is_bounded(mount, folder):  # noqa: F811
    disk = apple_map(
        entries=[
            (1, 63, b"a", b"b"),
            (64, 0xFFFFFFFF, b"c", b"d"),
            (0xFFFFFFFF, 1, b"e", b"f"),
            (64, 10, b"\x1b[2J", b"g"),
        ]
    )
    struct.pack_into(">I", disk, 512 + 4, 0xFFFFFFFF)
    put("apm.raw", disk)
    one = mount("apm.raw", "parts", "--partitions", "-f", "raw")
    assert sorted(os.listdir("parts")) == ["disk", "p1", "p4"]
    code, said = one.end()
    assert code == 0 and "not within the disk" in said and "\x1b" not in said


# --- VMDK ---


def test_a_lone_extent_names_its_descriptor(folder, cairn, qemu):
    put("disk.raw", pattern(MIB))
    qemu("convert", "-O", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", "disk.raw", "parts.vmdk")
    failed = cairn("info", "parts-s001.vmdk", ok=False)
    assert (
        failed.code == 1
        and "one extent of a split disk; open the descriptor ('parts.vmdk')" in failed.err
    )
    shutil.move("parts-s001.vmdk", "alone.vmdk")
    assert (
        "one extent of a split disk; open the descriptor"
        in cairn("convert", "alone.vmdk", "out.raw", ok=False).err
    )


@pytest.mark.parametrize(
    "subformat, extent", [("monolithicFlat", "a-flat.vmdk"), ("twoGbMaxExtentFlat", "a-f001.vmdk")]
)
def test_a_lone_flat_extent_is_named_as_one(folder, cairn, ours, qemu, subformat, extent):
    put("disk.raw", pattern(MIB))
    qemu("convert", "-O", "vmdk", "-o", f"subformat={subformat}", "disk.raw", "a.vmdk")
    for words in (["info"], ["hash"], ["convert", "-O", "qcow2"]):
        failed = cairn(*words, extent, *(["out.qcow2"] if words[0] == "convert" else []), ok=False)
        assert (
            failed.code == 1
            and "one extent of a VMDK disk" in failed.err
            and "open the descriptor ('a.vmdk')" in failed.err
        )
    os.remove("a.vmdk")
    failed = cairn("info", extent, ok=False)
    assert failed.code == 1 and "'a.vmdk' is not there" in failed.err and "-f raw" in failed.err
    cairn("compare", "-f", "raw", "-F", "raw", "disk.raw", extent)
    assert ours("info", extent).out == qemu("info", extent).out
    shutil.copy(extent, "no-extent.vmdk")
    assert cairn("info", "--output=json", "no-extent.vmdk").json()["format"] == "raw"


# --- disks of Parallels in pieces ---


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("ends", [[4096, 8192], [2048, 8192], [2048, 4096, 6144, 8192]])
def test_a_split_parallels_disk_is_one(folder, cairn, mount, plain, ends):  # noqa: F811
    disk = pattern(4 * MIB)
    put("disk.raw", disk)
    split_bundle(folder / "split.hdd", disk, ends, plain, shuffled=True)
    assert cairn("info", "--output=json", "split.hdd").json()["virtual-size"] == len(disk)
    cairn("convert", "split.hdd", "out.raw")
    assert open("out.raw", "rb").read() == disk
    assert cairn("check", "split.hdd").code == 0
    assert sum(row["length"] for row in cairn("map", "--output=json", "split.hdd").json()) == len(
        disk
    )
    one = mount("split.hdd", "file")
    assert open("file", "rb").read() == disk
    assert one.end()[0] == 0
    at = ends[0] * 512
    cairn(
        "io",
        "-c",
        f"write -P 7 {at - 4096} 8192",
        "-c",
        f"write -z {at + 65536} 65536",
        "split.hdd",
    )
    wanted = bytearray(disk)
    wanted[at - 4096 : at + 4096] = b"\7" * 8192
    wanted[at + 65536 : at + 131072] = bytes(65536)
    put("disk.raw", wanted)
    cairn("compare", "-f", "raw", "disk.raw", "split.hdd")


@pytest.mark.parametrize(
    "change",
    [("<Start>4096", "<Start>4097"), ("<End>8192", "<End>8000"), ("<Start>4096", "<Start>2048")],
)
def test_a_split_parallels_disk_with_a_gap_is_refused(folder, cairn, change):
    split_bundle(folder / "split.hdd", pattern(4 * MIB), [4096, 8192])
    descriptor = folder / "split.hdd/DiskDescriptor.xml"
    descriptor.write_text(descriptor.read_text().replace(*change))
    failed = cairn("info", "split.hdd", ok=False)
    assert failed.code == 1 and "sector" in failed.err


# --- appliances ---


@pytest.fixture
def stream(folder, qemu):
    put("disk.raw", pattern(4 * MIB))
    qemu("convert", "-O", "vmdk", "-o", "subformat=streamOptimized", "disk.raw", "d.vmdk")
    return open("d.vmdk", "rb").read()


def tar(name, members):
    with tarfile.open(name, "w", format=tarfile.USTAR_FORMAT) as out:
        for path, data in members:
            info = tarfile.TarInfo(path)
            if data is None:
                info.type = tarfile.DIRTYPE
            else:
                info.size = len(data)
            out.addfile(info, io.BytesIO(data) if data is not None else None)


@pytest.mark.parametrize("first", [[], [("vm/", None)]])
def test_an_appliance_in_a_directory_of_its_archive(stream, cairn, first):
    tar("a.ova", first + [("vm/vm.ovf", ovf("d.vmdk", 4 * MIB)), ("vm/d.vmdk", stream)])
    cairn("compare", "-f", "raw", "disk.raw", "a.ova")
    assert cairn("check", "a.ova").code == 0


def test_an_ovf_file_opens_as_its_appliance(stream, cairn, ours):
    put("exported/vm.ovf", ovf("d.vmdk", 4 * MIB))
    put("exported/d.vmdk", stream)
    cairn("compare", "-f", "raw", "disk.raw", "exported/vm.ovf")
    info = cairn("info", "--output=json", "exported/vm.ovf").json()
    assert info["format"] == "ova" and info["virtual-size"] == 4 * MIB
    assert ours("info", "--output=json", "exported/vm.ovf").json()["format"] == "raw"
    assert (
        "may not be opened here"
        in cairn("convert", "--untrusted", "exported/vm.ovf", "out.raw", "-O", "raw", ok=False).err
    )


@pytest.mark.parametrize("href", ["../d.vmdk", "/etc/passwd", "link.vmdk", "sub/../../d.vmdk"])
def test_an_ovf_file_reaches_nothing_outside_of_its_directory(stream, cairn, href):
    put("exported/vm.ovf", ovf(href, 4 * MIB))
    os.symlink("../d.vmdk", "exported/link.vmdk")
    failed = cairn("convert", "-O", "raw", "exported/vm.ovf", "out.raw", ok=False)
    assert failed.code == 1 and "outside of its directory" in failed.err


GZIP = ' ovf:compression="gzip"'


def test_a_disk_that_is_packed_by_gzip(stream, cairn):
    packed = gzip.compress(stream)
    tar("a.ova", [("vm.ovf", ovf("d.vmdk.gz", 4 * MIB, GZIP)), ("d.vmdk.gz", packed)])
    put("exported/vm.ovf", ovf("d.vmdk.gz", 4 * MIB, GZIP))
    put("exported/d.vmdk.gz", packed)
    for name in ("a.ova", "exported/vm.ovf"):
        cairn("compare", "-f", "raw", "disk.raw", name)
        assert cairn("info", "--output=json", name).json()["virtual-size"] == 4 * MIB
    tar("cut.ova", [("vm.ovf", ovf("d.vmdk.gz", 4 * MIB, GZIP)), ("d.vmdk.gz", packed[:-100])])
    assert "gzip" in cairn("convert", "cut.ova", "out.raw", ok=False).err
    tar(
        "bomb.ova",
        [
            ("vm.ovf", ovf("d.vmdk.gz", 4 * MIB, GZIP)),
            ("d.vmdk.gz", gzip.compress(bytes(100 * MIB), 1)),
        ],
    )
    assert "unpacks to more than" in cairn("convert", "bomb.ova", "out.raw", ok=False).err


# --- directories of virtual machines ---


def machine(cairn, name, *disks):
    for disk in disks:
        os.makedirs(os.path.dirname(f"{name}/{disk}"), exist_ok=True)
        cairn("convert", "-q", "-f", "raw", "disk.raw", f"{name}/{disk}")


@pytest.mark.parametrize(
    "name, disk",
    [("vm.utm", "Data/a.qcow2"), ("vm.utm", "Images/a.qcow2"), ("vm.vmwarevm", "vm.vmdk")],
)
def test_a_machine_with_one_disk_opens_as_it(folder, cairn, name, disk):
    put("disk.raw", pattern(MIB))
    machine(cairn, name, disk)
    put(f"{name}/config.plist", b"<plist/>")
    cairn("compare", "-f", "raw", "disk.raw", name)
    cairn("compare", "-f", "raw", "disk.raw", name + "/")


def test_a_parallels_machine_opens_as_its_disk(folder, cairn):
    os.mkdir("vm.pvm")
    put("disk.raw", pattern(4 * MIB))
    split_bundle(folder / "vm.pvm/a.hdd", pattern(4 * MIB), [4096, 8192])
    cairn("compare", "-f", "raw", "disk.raw", "vm.pvm")


def test_a_split_disk_in_a_machine_is_one(folder, cairn, qemu):
    put("disk.raw", pattern(MIB))
    os.mkdir("vm.vmwarevm")
    qemu(
        "convert",
        "-O",
        "vmdk",
        "-o",
        "subformat=twoGbMaxExtentSparse",
        "disk.raw",
        "vm.vmwarevm/vm.vmdk",
    )
    cairn("compare", "-f", "raw", "disk.raw", "vm.vmwarevm")


def test_several_disks_or_none_are_named(folder, cairn):
    put("disk.raw", pattern(MIB))
    machine(cairn, "vm.utm", "Data/a.qcow2", "Data/b.qcow2")
    failed = cairn("info", "vm.utm", ok=False)
    assert (
        failed.code == 1
        and "vm.utm/Data/a.qcow2" in failed.err
        and "vm.utm/Data/b.qcow2" in failed.err
    )
    os.mkdir("empty.vmwarevm")
    assert "without a disk" in cairn("info", "empty.vmwarevm", ok=False).err
    put(
        "vm.vbox",
        b'<?xml version="1.0"?><VirtualBox><HardDisks><HardDisk uuid="{1}" location="disks/a.vdi" format="VDI"/></HardDisks></VirtualBox>',
    )
    failed = cairn("convert", "vm.vbox", "out.raw", ok=False)
    assert failed.code == 1 and "disks/a.vdi" in failed.err


@pytest.mark.parametrize("name", ["Backup.sparsebundle", "renamed"])
def test_a_sparse_bundle_is_named(folder, cairn, name):
    put(f"{name}/Info.plist", b"<plist/>")
    put(f"{name}/bands/0", bytes(4096))
    for words in (["info"], ["hash"], ["convert", "-O", "raw"]):
        failed = cairn(*words, name, *(["out.raw"] if words[0] == "convert" else []), ok=False)
        assert (
            failed.code == 1
            and f"'{name}' is a sparse bundle of macOS" in failed.err
            and "hdiutil convert" in failed.err
        )


@pytest.mark.parametrize("name, disk", [("vm.utm", "Data/a.qcow2"), ("vm.vmwarevm", "vm.vmdk")])
def test_a_cut_disk_in_a_machine_is_an_error(folder, cairn, name, disk):
    put("disk.raw", bytes(range(1, 256)) * (MIB // 64))
    machine(cairn, name, disk)
    put(f"{name}/config.plist", b"<plist/>")
    os.truncate(f"{name}/{disk}", os.path.getsize(f"{name}/{disk}") // 2)
    for verb in ("hash", "check"):
        assert cairn(verb, name, ok=False).code != 0
    assert f"{name}/{disk}" in cairn("convert", "-O", "raw", name, "out.raw", ok=False).err


def test_a_cut_piece_in_a_parallels_machine_is_an_error(folder, cairn):
    os.mkdir("vm.pvm")
    split_bundle(folder / "vm.pvm/a.hdd", pattern(4 * MIB), [4096, 8192])
    largest = max((folder / "vm.pvm/a.hdd").glob("*.hds"), key=os.path.getsize)
    os.truncate(largest, os.path.getsize(largest) // 2)
    failed = cairn("convert", "-O", "raw", "vm.pvm", "out.raw", ok=False)
    assert failed.code == 1 and largest.name in failed.err

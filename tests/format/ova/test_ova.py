"""Appliances (OVA): written for VMware's tools, taken apart with tar, xmllint, sha256sum and qemu-img; disks read in place."""
# Packages: libxml2-utils
import io
import subprocess
import tarfile

import pytest

from conftest import sparse_disk

pytestmark = pytest.mark.any_engine

MIB = 1 << 20


def tool(*words):
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def path_of(*steps):
    """An XPath that asks for local names: which prefixes are used does not matter."""
    return "".join(f"/*[local-name()='{step}']" for step in steps)


def ask(file, path):
    return tool("xmllint", "--xpath", f"string({path})", file).strip()


@pytest.fixture
def box(disk, cairn):
    cairn("convert", disk, "box.ova")
    return "box.ova"


def archive(name, members, fmt=tarfile.USTAR_FORMAT):
    with tarfile.open(name, "w", format=fmt) as out:
        for member, content in members:
            info = tarfile.TarInfo(member)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))


def descriptor(*disks, extra=""):
    files = "".join(
        f'<File ovf:id="f{i}" ovf:href="{name}" {more}/>' for i, (name, more) in enumerate(disks)
    )
    entries = "".join(
        f'<Disk ovf:diskId="d{i}" ovf:fileRef="f{i}" ovf:capacity="3" ovf:capacityAllocationUnits="byte * 2^20"/>'
        for i, _ in enumerate(disks)
    )
    return (
        f'<?xml version="1.0"?>{extra}<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" '
        f'xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"><References>{files}</References>'
        f"<DiskSection><Info/>{entries}</DiskSection></Envelope>"
    ).encode()


def test_what_is_written(box, disk, qemu):
    assert tool("tar", "tf", box).split() == ["box.ovf", "box-disk1.vmdk", "box.mf"]
    tool("tar", "xf", box)
    tool("xmllint", "--noout", "box.ovf")
    for line in open("box.mf"):
        name, digest = line.removeprefix("SHA256(").rstrip().split(")= ")
        assert tool("sha256sum", name).split()[0] == digest
        assert digest in tool("openssl", "dgst", "-sha256", name)
    qemu("compare", "-f", "vmdk", "-F", "raw", "box-disk1.vmdk", disk)
    info = qemu("info", "--output=json", "-f", "vmdk", "box-disk1.vmdk").json()["format-specific"][
        "data"
    ]
    assert info["create-type"] == "streamOptimized"
    text = open("box-disk1.vmdk", "rb").read(4096)
    assert b'ddb.adapterType = "lsilogic"' in text and b'"box-disk1.vmdk"' in text
    assert text[4] == 3 and text[56:64] == b"\xff" * 8  # the header that ESXi wants


RULES = [
    (
        "the file is listed, with its size",
        path_of("Envelope", "References", "File") + "/@*[local-name()='size']",
        lambda folder: str((folder / "box-disk1.vmdk").stat().st_size),
    ),
    (
        "the disk names the file",
        path_of("Envelope", "DiskSection", "Disk") + "/@*[local-name()='fileRef']",
        lambda folder: "file1",
    ),
    (
        "the disk has its capacity",
        path_of("Envelope", "DiskSection", "Disk") + "/@*[local-name()='capacity']",
        lambda folder: str(3 * MIB + 512),
    ),
    (
        "the disk is a stream",
        path_of("Envelope", "DiskSection", "Disk") + "/@*[local-name()='format']",
        lambda folder: "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized",
    ),
    (
        "the hardware is VMware's",
        path_of(
            "Envelope", "VirtualSystem", "VirtualHardwareSection", "System", "VirtualSystemType"
        ),
        lambda folder: "vmx-13",
    ),
    (
        "processors",
        "//*[local-name()='Item'][*[local-name()='ResourceType']='3']/*[local-name()='VirtualQuantity']",
        lambda folder: "4",
    ),
    (
        "memory",
        "//*[local-name()='Item'][*[local-name()='ResourceType']='4']/*[local-name()='VirtualQuantity']",
        lambda folder: "2048",
    ),
    (
        "the disk hangs on the controller",
        "//*[local-name()='Item'][*[local-name()='ResourceType']='17']/*[local-name()='Parent']",
        lambda folder: "3",
    ),
    (
        "the hardware has the disk",
        "//*[local-name()='Item'][*[local-name()='ResourceType']='17']/*[local-name()='HostResource']",
        lambda folder: "ovf:/disk/vmdisk1",
    ),
    (
        "every section says what it is",
        "count(//*[local-name()='DiskSection' or local-name()='VirtualSystem' or local-name()='VirtualHardwareSection' "
        "or local-name()='OperatingSystemSection'][not(*[local-name()='Info'])])",
        lambda folder: "0",
    ),
    ("the name", path_of("Envelope", "VirtualSystem", "Name"), lambda folder: "A & B"),
]


def test_descriptor_follows_the_rules(disk, folder, cairn):
    cairn(
        "convert", "-O", "ova", "-o", "cpus=4,memory=2G,name=A & B,hardware=vmx-13", disk, "box.ova"
    )
    tool("tar", "xf", "box.ova")
    for rule, path, value in RULES:
        assert ask("box.ovf", path) == value(folder), rule
    # Elements of an item come in the order of the alphabet: the schema is a sequence.
    for i in range(1, 5):
        names = [
            tool(
                "xmllint",
                "--xpath",
                f"local-name((//*[local-name()='Item'])[{i}]/*[{j}])",
                "box.ovf",
            ).strip()
            for j in range(1, 9)
        ]
        names = [name for name in names if name]
        assert len(names) > 4 and names == sorted(names)


def test_read_in_place(box, disk, cairn, ours):
    cairn("compare", box, disk)
    cairn("convert", "--verify", box, "back.qcow2")
    cairn("compare", "back.qcow2", disk)
    info = cairn("info", "--output=json", box).json()
    assert info["format"] == "ova" and info["virtual-size"] == 3 * MIB + 512
    data = info["format-specific"]["data"]
    assert (
        data["manifest"]
        and data["disks"][0]["file"] == "box-disk1.vmdk"
        and data["disks"][0]["format"] == "vmdk"
    )
    pieces = cairn("map", "--output=json", box).json()
    assert sum(piece["length"] for piece in pieces) == 3 * MIB + 512 and any(
        piece["compressed"] for piece in pieces
    )
    assert "No errors" in cairn("check", box).out
    assert cairn("hash", box).out.split()[0] == tool("sha256sum", disk).split()[0]
    # For QEMU's tools an archive is a raw disk.
    assert ours("info", "--output=json", box).json()["format"] == "raw"


def test_every_kind_of_source_and_empty_disks(disk, cairn, qemu):
    qemu("convert", "-O", "qcow2", disk, "a.qcow2")
    cairn("convert", "a.qcow2", "a.ova")
    cairn("compare", "a.ova", disk)
    cairn("create", "-q", "empty.ova", "5M")
    assert tool("tar", "tf", "empty.ova").split() == ["empty.ovf", "empty.mf"]
    qemu("create", "-q", "-f", "raw", "zero.raw", "5M")
    cairn("compare", "empty.ova", "zero.raw")
    cairn("convert", "zero.raw", "zero.ova")
    cairn("compare", "zero.ova", "zero.raw")
    assert "written once" in cairn("convert", "-n", disk, "a.ova", ok=False).err
    cairn("compare", "a.ova", disk)


def test_one_of_several_disks(folder, cairn, qemu):
    members = []
    for i, fmt in enumerate(["vmdk", "qcow2", "vdi"]):
        sparse_disk(f"{i}.raw", MIB, seed=i + 1)
        words = ["-o", "subformat=streamOptimized"] if fmt == "vmdk" else []
        qemu("convert", "-f", "raw", "-O", fmt, *words, f"{i}.raw", f"{i}.img")
        members.append((f"{i}.img", (folder / f"{i}.img").read_bytes()))
    for fmt in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        archive(
            "many.ova",
            [("many.ovf", descriptor(*((name, "") for name, _ in members))), *members],
            fmt,
        )
        refused = cairn("convert", "many.ova", "out.raw", ok=False)
        assert (
            refused.code == 1 and "3 disks" in refused.err and "2: d1, 1.img, 3 MiB" in refused.err
        )
        for i in range(3):
            for name in (str(i + 1), f"d{i}", f"{i}.img"):
                cairn("compare", "--disk", name, "many.ova", f"{i}.raw")
    cairn("convert", "--disk", "2", "many.ova", "out.raw")
    qemu("compare", "-f", "raw", "-F", "raw", "out.raw", "1.raw")
    cairn(
        "compare",
        "--image-opts",
        "driver=ova,disk=d2,file.filename=many.ova",
        "driver=raw,file.filename=2.raw",
    )
    assert (
        len(cairn("info", "--output=json", "many.ova").json()["format-specific"]["data"]["disks"])
        == 3
    )
    assert "shown: true" in cairn("info", "--disk", "3", "many.ova").out
    assert cairn("map", "--disk", "3", "--output=json", "many.ova").json()
    assert (
        cairn("measure", "--disk", "3", "-O", "raw", "--output=json", "many.ova").json()["required"]
        == MIB
    )
    assert "no disk 'x'" in cairn("info", "--disk", "x", "many.ova", ok=False).err
    assert (
        "does not support the option 'disk'" in cairn("info", "--disk", "1", "0.raw", ok=False).err
    )


def test_disks_that_lie_on_others(folder, cairn, qemu):
    """The parent would be a file beside the archive: it is not looked at, and nothing is shown in its place."""
    qemu("create", "-q", "-f", "vmdk", "base.vmdk", "1M")
    qemu("create", "-q", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", "child.vmdk")
    archive(
        "a.ova",
        [
            ("a.ovf", descriptor(("child.vmdk", ""))),
            ("child.vmdk", (folder / "child.vmdk").read_bytes()),
        ],
    )
    done = cairn("convert", "a.ova", "out.raw", ok=False)
    assert done.code == 1 and "may not be opened" in done.err
    # What can be read is found among what cannot.
    archive(
        "b.ova",
        [
            ("b.ovf", descriptor(("x", 'ovf:compression="bzip2"'), ("base.vmdk", ""))),
            ("base.vmdk", (folder / "base.vmdk").read_bytes()),
        ],
    )
    assert [
        one["shown"]
        for one in cairn("info", "--output=json", "b.ova").json()["format-specific"]["data"][
            "disks"
        ]
    ] == [False, True]
    cairn("convert", "--disk", "2", "b.ova", "out.raw")


def test_long_names_and_large_files(folder, cairn, qemu):
    qemu("create", "-q", "-f", "vmdk", "-o", "subformat=streamOptimized", "a.vmdk", "1M")
    content = (folder / "a.vmdk").read_bytes()
    name = "n" * 150 + ".vmdk"
    for fmt in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        archive("long.ova", [("long.ovf", descriptor((name, ""))), (name, content)], fmt)
        assert cairn("info", "--output=json", "long.ova").json()["virtual-size"] == MIB
    # 9 GiB in front of the disk, sparse: a size that octal digits do not hold.
    with open("large.ova", "wb") as out:
        for member, size, data in (
            ("l.ovf", None, descriptor(("a.vmdk", ""))),
            ("other", 9 << 30, b""),
            ("a.vmdk", None, content),
        ):
            info = tarfile.TarInfo(member)
            info.size = len(data) if size is None else size
            out.write(info.tobuf(tarfile.GNU_FORMAT))
            out.write(data)
            end = out.tell() + info.size - len(data)
            out.seek((end + 511) // 512 * 512)
        out.truncate(out.tell() + 1024)
    assert cairn("info", "--output=json", "large.ova").json()["virtual-size"] == MIB


@pytest.mark.parametrize("member, place", [("box.ovf", 600), ("box-disk1.vmdk", 90000)])
def test_check_knows_the_manifest(box, cairn, member, place):
    data = bytearray(open(box, "rb").read())
    place = min(place, len(data) - 4000) if member != "box.ovf" else data.index(b"Hard disk 1")
    data[place] ^= 1
    open(box, "wb").write(data)
    done = cairn("check", box, ok=False)
    assert done.code == 2 and f"'{member}' of the manifest" in done.err


VMDK = object()
BROKEN = [
    (
        "no descriptor in front",
        [("a.vmdk", b"x"), ("a.ovf", descriptor(("a.vmdk", "")))],
        "does not begin with an OVF descriptor",
    ),
    ("no XML", [("a.ovf", b"<Envelope")], "not XML"),
    ("another document", [("a.ovf", b"<html/>")], "not an envelope"),
    ("no disks", [("a.ovf", descriptor())], "no disks"),
    ("a file that is not there", [("a.ovf", descriptor(("a.vmdk", "")))], "does not have"),
    (
        "a file that is not listed",
        [("a.ovf", descriptor(("a.vmdk", "")).replace(b'fileRef="f0"', b'fileRef="x"'))],
        "does not list",
    ),
    (
        "packed",
        [("a.ovf", descriptor(("a.vmdk", 'ovf:compression="bzip2"'))), ("a.vmdk", VMDK)],
        "compressed (bzip2)",
    ),
    (
        "in pieces",
        [("a.ovf", descriptor(("a.vmdk", 'ovf:chunkSize="100"'))), ("a.vmdk", VMDK)],
        "in pieces",
    ),
    ("elsewhere", [("a.ovf", descriptor(("http://x/a.vmdk", "")))], "elsewhere"),
    (
        "no VMDK",
        [
            (
                "a.ovf",
                descriptor(("a.vmdk", "")).replace(
                    b"<Disk ", b'<Disk ovf:format="http://www.vmware.com/vmdk.html" '
                ),
            ),
            ("a.vmdk", b"x" * 5000),
        ],
        "is not a VMDK image",
    ),
    (
        "a descriptor that names a file outside",
        [
            ("a.ovf", descriptor(("a.vmdk", ""))),
            (
                "a.vmdk",
                b"# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\n"
                b'createType="monolithicFlat"\nRW 8 FLAT "/etc/passwd" 0\n',
            ),
        ],
        "may not be opened",
    ),
    (
        "entities",
        [
            (
                "a.ovf",
                descriptor(
                    extra='<!DOCTYPE x [<!ENTITY a "' + "b" * 1000 + '"><!ENTITY c "&a;&a;&a;">]>'
                ),
            )
        ],
        "no disks",
    ),
    ("deep", [("a.ovf", b"<a>" * 200000)], "not XML"),
]


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case[0])
def test_refused(folder, cairn, qemu, case):
    qemu("create", "-q", "-f", "vmdk", "-o", "subformat=streamOptimized", "v.vmdk", "1M")
    members = [
        (name, (folder / "v.vmdk").read_bytes() if content is VMDK else content)
        for name, content in case[1]
    ]
    archive("a.ova", members)
    # What an extent would be is told without a look at it.
    for words in ([] if "outside" in case[0] else ["info"], ["convert", "-O", "raw"]):
        if not words:
            continue
        done = cairn(
            *words, "-f", "ova", "a.ova", *(["out.raw"] if words[0] == "convert" else []), ok=False
        )
        assert done.code == 1 and case[2] in done.err, done.err


def put(data, at, text):
    """Changes a header and its checksum."""
    data[at : at + len(text)] = text
    start = at // 512 * 512
    data[start + 148 : start + 156] = b" " * 8
    data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])


TORN = {
    "cut in the disk": (lambda data: data.__delitem__(slice(20000, None)), "the archive is cut"),
    "cut in the descriptor": (
        lambda data: data.__delitem__(slice(1000, None)),
        "the archive is cut",
    ),
    "a size beyond all": (
        lambda data: put(data, 124, b"\x80" + b"\0" * 5 + b"\xff" * 6),
        "the archive is cut",
    ),
    "a size that overflows": (lambda data: put(data, 124, b"\xff" * 12), "has no size"),
    "a size that is no number": (lambda data: put(data, 124, b"99999999999\0"), "has no size"),
    "a wrong checksum": (lambda data: data.__setitem__(slice(0, 3), b"xyz"), "not the header"),
    "a sparse file": (lambda data: put(data, 156, b"S"), "sparse files"),
    "a descriptor of gigabytes": (
        lambda data: (put(data, 124, b"77777777777\0"), data.extend(bytes(1))),
        "the archive is cut",
    ),
    "a pax header that lies": (lambda data: put(data, 156, b"x"), "pax header"),
}


@pytest.mark.parametrize("name", TORN)
def test_torn_archives(box, cairn, name):
    data = bytearray(open(box, "rb").read())
    change, message = TORN[name]
    change(data)
    open("torn.ova", "wb").write(data)
    done = cairn("info", "-f", "ova", "torn.ova", ok=False)
    assert done.code == 1 and message in done.err, done.err


def test_many_members(folder, cairn):
    archive(
        "a.ova", [("a.ovf", descriptor(("a.vmdk", ""))), *((f"m{i}", b"") for i in range(4200))]
    )
    assert "more than 4096" in cairn("info", "a.ova", ok=False).err


def test_options_and_failures(disk, folder, cairn):
    for options, message in (
        ("cpus=0", "cpus"),
        ("memory=1k", "memory"),
        ("name=", "cannot be stored"),
        ("nope=1", "Invalid parameter"),
    ):
        assert message in cairn("convert", "-O", "ova", "-o", options, disk, "x.ova", ok=False).err
        assert not (folder / "x.ova").exists()
    cairn("convert", disk, "name with (odd) signs.ova")
    assert tool("tar", "tf", "name with (odd) signs.ova").split()[0] == "name_with__odd__signs.ovf"
    assert "No errors" in cairn("check", "name with (odd) signs.ova").out
    # Nothing temporary is left.
    assert sorted(path.name for path in folder.iterdir()) == [
        "disk.raw",
        "name with (odd) signs.ova",
    ]
    assert cairn("convert", "--untrusted", "name with (odd) signs.ova", "back.raw").code == 0
    cairn("compare", "back.raw", disk)
    refused = cairn("convert", "--untrusted", disk, "again.ova", ok=False)
    assert (
        refused.code == 1
        and "temporary file" in refused.err
        and not (folder / "again.ova").exists()
    )

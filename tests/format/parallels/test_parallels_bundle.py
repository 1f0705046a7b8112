"""Parallels bundles: folders with a DiskDescriptor.xml, their snapshots, descriptors that lie."""
import struct
from pathlib import Path

import pytest

pytestmark = pytest.mark.any_engine

MIB = 1 << 20


ROOT, MIDDLE, BRANCH = (f"{{{digit * 8}-0000-0000-0000-000000000000}}" for digit in "123")
TOP = "{5fbaabe3-6958-40ff-92a7-860e329aab41}"
NONE = "{00000000-0000-0000-0000-000000000000}"


def descriptor(
    images, shots=(), top=None, sectors=8192, cluster=2048, padding="0", version="1.0", storages=1
):
    storage = (
        f"<Storage><Start>0</Start><End>{sectors}</End><Blocksize>{cluster}</Blocksize>"
        + "".join(
            f"<Image><GUID>{guid}</GUID><Type>{kind}</Type><File>{file}</File></Image>"
            for guid, kind, file in images
        )
        + "</Storage>"
    )
    tree = "".join(
        f"<Shot><GUID>{guid}</GUID><ParentGUID>{parent}</ParentGUID></Shot>"
        for guid, parent in shots
    )
    tops = f"<TopGUID>{top}</TopGUID>" if top else ""
    return f"""<?xml version='1.0' encoding='UTF-8'?>
<Parallels_disk_image Version="{version}">
    <Disk_Parameters>
        <Disk_size> {sectors} </Disk_size><Cylinders>16</Cylinders><Heads>16</Heads><Sectors>32</Sectors>
        <Padding>{padding}</Padding><Unknown><Deep/></Unknown>
    </Disk_Parameters>
    <StorageData>{storage * storages}</StorageData>
    <Snapshots>{tops}{tree}</Snapshots>
</Parallels_disk_image>
"""


CHAIN = dict(
    images=[
        (ROOT, "Plain", "root.hds"),
        (MIDDLE, "Compressed", "middle.hds"),
        (BRANCH, "Compressed", "branch.hds"),
        (TOP, "Compressed", "top.hds"),
    ],
    shots=[(ROOT, NONE), (MIDDLE, ROOT), (BRANCH, ROOT), (TOP, MIDDLE)],
)


@pytest.fixture
def bundle(folder, cairn):
    """A plain root of bytes 1; over it MIDDLE with 2 in the second MiB and BRANCH with 9; the top has 3 in the third one."""
    (folder / "d.hdd").mkdir()
    (folder / "d.hdd/root.hds").write_bytes(b"\1" * (4 * MIB))
    for name in ("middle", "branch", "top"):
        cairn("create", "-q", "-f", "parallels", f"d.hdd/{name}.hds", "4M")
    cairn("io", "-f", "parallels", "-c", "write -P 2 1M 1M", "d.hdd/middle.hds")
    cairn("io", "-f", "parallels", "-c", "write -P 9 1M 1M", "d.hdd/branch.hds")
    cairn("io", "-f", "parallels", "-c", "write -P 3 2M 1M", "d.hdd/top.hds")

    def write(**more):
        (folder / "d.hdd/DiskDescriptor.xml").write_text(descriptor(**{**CHAIN, **more}))
        return "d.hdd"

    return write


def mib(*values):
    return b"".join(bytes([value]) * MIB for value in values)


def test_a_bundle_is_the_state_on_top(bundle, cairn):
    for name in (bundle(), "d.hdd/DiskDescriptor.xml"):
        info = cairn("info", "--output=json", name).json()
        assert (
            info["format"] == "parallels"
            and info["virtual-size"] == 4 * MIB
            and len(info["snapshots"]) == 3
        )
        cairn("convert", "--overwrite", "-O", "raw", name, "out.raw")
        assert Path("out.raw").read_bytes() == mib(1, 2, 3, 1)
        assert cairn("check", name).code == 0
    cairn("compare", "d.hdd", "out.raw")


@pytest.mark.parametrize(
    "guid, expected",
    [(ROOT, (1, 1, 1, 1)), (MIDDLE, (1, 2, 1, 1)), (BRANCH, (1, 9, 1, 1)), (TOP, (1, 2, 3, 1))],
)
def test_snapshots_of_a_bundle(bundle, cairn, guid, expected):
    bundle()
    cairn(
        "convert",
        "-O",
        "raw",
        "--image-opts",
        f"driver=parallels,snapshot={guid},file.filename=d.hdd/DiskDescriptor.xml",
        "out.raw",
    )
    assert Path("out.raw").read_bytes() == mib(*expected)
    if guid in (ROOT, MIDDLE):
        cairn("convert", "--overwrite", "-O", "raw", "-l", guid.strip("{}"), "d.hdd", "out.raw")
        assert Path("out.raw").read_bytes() == mib(*expected)


def test_writes_go_to_the_top(bundle, cairn, qemu):
    bundle()
    before = {name: Path(f"d.hdd/{name}.hds").read_bytes() for name in ("root", "middle", "branch")}
    cairn(
        "io",
        "-f",
        "parallels",
        "-d",
        "unmap",
        "-c",
        "write -P 7 1000k 100k",
        "-c",
        "write -z 3M 1M",
        "-c",
        "discard 2M 1M",
        "d.hdd",
    )
    assert all(Path(f"d.hdd/{name}.hds").read_bytes() == data for name, data in before.items())
    data = bytearray(mib(1, 2, 3, 0))
    data[1000 * 1024 : 1100 * 1024] = b"\7" * (100 * 1024)
    cairn("convert", "--overwrite", "-O", "raw", "d.hdd", "out.raw")
    assert Path("out.raw").read_bytes() == bytes(data)
    qemu("check", "d.hdd/top.hds")
    denied = cairn(
        "io",
        "--image-opts",
        "-c",
        "write 0 1k",
        f"driver=parallels,snapshot={MIDDLE},file.filename=d.hdd/DiskDescriptor.xml",
        ok=False,
    )
    assert denied.code == 1


def test_another_top(bundle, cairn):
    bundle(top=BRANCH)
    cairn("io", "-r", "-f", "parallels", "-c", "read -P 9 1M 1M", "-c", "read -P 1 2M 1M", "d.hdd/")


def test_a_bundle_of_one_image(bundle, cairn, qemu):
    bundle(images=[(TOP, "Compressed", "top.hds")], shots=[])
    cairn("io", "-f", "parallels", "-c", "write -P 4 0 1M", "-c", "read -P 3 2M 1M", "d.hdd")
    qemu("check", "d.hdd/top.hds")
    bundle(images=[(ROOT, "Plain", "root.hds")], shots=[(ROOT, NONE)])
    cairn("io", "-f", "parallels", "-c", "write -P 4 0 1M", "-c", "read -P 1 1M 3M", "d.hdd")
    assert Path("d.hdd/root.hds").read_bytes() == mib(4, 1, 1, 1)


def test_check_names_the_image(bundle, cairn):
    bundle()
    with open("d.hdd/middle.hds", "r+b") as image:
        image.seek(44)
        image.write(struct.pack("<I", 0x746F6E59))
    result = cairn("check", "d.hdd", ok=False)
    assert result.code == 2 and "middle.hds: ERROR image was not closed correctly" in result.err


def test_files_outside_of_the_folder_obey_the_policy(bundle, cairn, folder):
    (folder / "d.hdd/root.hds").rename(folder / "outside.raw")
    for file, link in (
        (str(folder / "outside.raw"), None),
        ("../outside.raw", None),
        ("root.hds", "../outside.raw"),
    ):
        bundle(images=[(ROOT, "Plain", file)] + CHAIN["images"][1:])
        if link:
            (folder / "d.hdd/root.hds").symlink_to(link)
        cairn("convert", "--overwrite", "-O", "raw", "d.hdd", "out.raw")
        assert Path("out.raw").read_bytes() == mib(1, 2, 3, 1)
        result = cairn(
            "convert", "--untrusted", "-f", "parallels", "-O", "raw", "d.hdd", "out2.raw", ok=False
        )
        assert result.code == 1 and "may not be opened here" in result.err
        assert cairn("info", "--untrusted", "d.hdd").code == 0


def test_an_untrusted_bundle(bundle, cairn):
    bundle()
    cairn("convert", "--untrusted", "-f", "parallels", "-O", "raw", "d.hdd", "out.raw")
    assert Path("out.raw").read_bytes() == mib(1, 2, 3, 1)


BUNDLE_LIES = {
    "no_xml": (lambda text: text[:300], "no XML"),
    "version": (
        lambda text: text.replace('Version="1.0"', 'Version="2"'),
        "version '2' is not 1.0",
    ),
    "padding": (lambda text: text.replace("<Padding>0", "<Padding>1"), "padding"),
    "split": (
        lambda text: text.replace("</StorageData>", "<Storage/></StorageData>"),
        "Start is not a number",
    ),
    "no_storage": (lambda text: text.replace("StorageData>", "Other>"), "there is no Storage"),
    "end": (lambda text: text.replace("<End>8192", "<End>8191"), "does not cover the disk"),
    "size": (
        lambda text: text.replace("8192", "99999999999999999999"),
        "Disk_size is not a number",
    ),
    "huge": (lambda text: text.replace("8192", "18446744073709551615"), "too large"),
    "other_size": (lambda text: text.replace("8192", "8191"), "the image has 4194304 bytes"),
    "cluster": (
        lambda text: text.replace("<Blocksize>2048", "<Blocksize>63"),
        "clusters of 2048 sectors",
    ),
    "type": (lambda text: text.replace("Compressed", "Odd", 1), "unknown type 'Odd'"),
    "guid": (lambda text: text.replace(MIDDLE, "{1}", 1), "GUID is not a GUID"),
    "file": (lambda text: text.replace("middle.hds", ""), "has no file name"),
    "missing": (lambda text: text.replace("middle.hds", "gone.hds"), "gone.hds"),
    "descriptor": (
        lambda text: text.replace("middle.hds", "DiskDescriptor.xml"),
        "Image not in Parallels format",
    ),
    "twice": (lambda text: text.replace("middle.hds", "top.hds"), "'top.hds' is named twice"),
    "folder": (lambda text: text.replace("middle.hds", "."), "d.hdd"),
    "same_image": (
        lambda text: text.replace(f"<Image><GUID>{BRANCH}", f"<Image><GUID>{MIDDLE}"),
        "two images",
    ),
    "same_shot": (
        lambda text: text.replace(f"<Shot><GUID>{BRANCH}", f"<Shot><GUID>{MIDDLE}"),
        "two shots",
    ),
    "no_image": (
        lambda text: text.replace(
            f"<Shot><GUID>{BRANCH}", "<Shot><GUID>" + BRANCH.replace("3", "4")
        ),
        "has no image",
    ),
    "cycle": (
        lambda text: text.replace(
            f"{MIDDLE}</GUID><ParentGUID>{ROOT}", f"{MIDDLE}</GUID><ParentGUID>{TOP}"
        ),
        "is its own ancestor",
    ),
    "roots": (
        lambda text: text.replace(f"<ParentGUID>{ROOT}", f"<ParentGUID>{NONE}"),
        "3 shots have no parent",
    ),
    "parent": (
        lambda text: text.replace(
            f"<ParentGUID>{MIDDLE}", "<ParentGUID>" + BRANCH.replace("3", "5")
        ),
        "is missing",
    ),
    "top": (
        lambda text: text.replace(
            "<Snapshots>", "<Snapshots><TopGUID>" + BRANCH.replace("3", "6") + "</TopGUID>"
        ),
        "has no state",
    ),
    "plain": (
        lambda text: text.replace("Compressed</Type><File>top", "Plain</Type><File>top"),
        "is plain, but has a parent",
    ),
    "long": (lambda text: text + " " * MIB, "has more than 1048576 bytes"),
    "entities": (
        lambda text: text.replace(
            "<Parallels_disk", "<!DOCTYPE x [<!ENTITY a 'b'>]><Parallels_disk"
        ).replace("<Padding>0", "<Padding>&a;"),
        "Padding is not a number",
    ),
    "deep": (lambda text: text.replace("<Unknown>", "<Unknown>" + "<a>" * 50000), "no XML"),
}


@pytest.mark.parametrize("lie", BUNDLE_LIES)
def test_descriptors_that_lie(bundle, cairn, folder, lie):
    change, message = BUNDLE_LIES[lie]
    bundle()
    name = folder / "d.hdd/DiskDescriptor.xml"
    name.write_text(change(name.read_text()))
    result = cairn("convert", "-f", "parallels", "-O", "raw", "d.hdd", "out.raw", ok=False)
    assert result.code == 1 and message in result.err and "d.hdd" in result.err


def test_a_plain_image_that_is_too_short(bundle, cairn, folder):
    bundle()
    (folder / "d.hdd/root.hds").write_bytes(bytes(MIB))
    result = cairn("map", "d.hdd", ok=False)
    assert result.code == 1 and "root.hds" in result.err and "shorter than the disk" in result.err


def test_folders_under_qemus_name(bundle, ours, qemu):
    bundle()
    for name in ("d.hdd", "d.hdd/DiskDescriptor.xml"):
        mine, theirs = ours("info", name, ok=False), qemu("info", name, ok=False)
        assert (mine.code, mine.out, mine.err) == (theirs.code, theirs.out, theirs.err)

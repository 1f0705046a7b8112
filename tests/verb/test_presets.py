"""`convert --for NAME`: what clouds and hypervisors take, and its check."""
import os
import subprocess
import tarfile

import pytest

from conftest import sparse_disk

pytestmark = [pytest.mark.any_engine, pytest.mark.words]

MIB, GIB = 1 << 20, 1 << 30


def info(cairn, name):
    return cairn("info", "--output=json", name).json()


def kind(cairn, name):
    data = info(cairn, name).get("format-specific", {}).get("data", {})
    return data.get("create-type") or data.get("subformat")


ROWS = [
    ("aws", "a.raw", "raw", None),
    ("aws", "a.vmdk", "vmdk", "streamOptimized"),
    ("aws", "a.vhd", "vpc", None),
    ("aws", "a.ova", "ova", None),
    ("azure", "a.vhd", "vpc", None),
    ("hyperv", "a.vhdx", "vhdx", "dynamic"),
    ("openstack", "a.qcow2", "qcow2", None),
    ("openstack", "a.raw", "raw", None),
    ("proxmox", "a.qcow2", "qcow2", None),
    ("virtualbox", "a.vdi", "vdi", None),
    ("vsphere", "a.vmdk", "vmdk", "streamOptimized"),
    ("vsphere", "a.ova", "ova", None),
]


@pytest.mark.parametrize("name, target, fmt, subformat", ROWS)
def test_a_preset_makes_what_its_maker_takes(disk, cairn, name, target, fmt, subformat):
    done = cairn("convert", "--for", name, "--verify", disk, target)
    assert "Ready for " in done.out
    found = info(cairn, target)
    if fmt != "raw":
        assert found["format"] == fmt
    if subformat:
        assert kind(cairn, target) == subformat
    size = os.path.getsize(disk)
    unit = MIB if name in ("azure", "hyperv") else 512
    assert found["virtual-size"] == (size + unit - 1) // unit * unit
    cairn("compare", "-f", "raw", disk, target)


@pytest.mark.slow
def test_google_takes_a_tar_archive(disk, cairn, folder):
    assert "disk.raw of whole GiB" in cairn("convert", "--for", "gcp", disk, "image.tar.gz").out
    assert subprocess.run(["gzip", "-t", "image.tar.gz"]).returncode == 0
    listed = subprocess.run(
        ["tar", "tvzf", "image.tar.gz"], capture_output=True, text=True, check=True
    ).stdout
    assert str(GIB) in listed and listed.rstrip().endswith("disk.raw")
    with tarfile.open("image.tar.gz") as archive:
        [member] = archive.getmembers()
        assert member.name == "disk.raw" and member.size == GIB and member.isreg()
        content = archive.extractfile(member).read(8 * MIB)
    whole = open(disk, "rb").read()
    assert content[: len(whole)] == whole and not any(content[len(whole) :])
    head = subprocess.run(["gzip", "-dc", "image.tar.gz"], capture_output=True).stdout[:512]
    assert head[257:265] == b"ustar  \0"  # GNU's old layout


@pytest.mark.slow
def test_several_sources_make_one_archive(folder, cairn):
    for name in ("a.raw", "b.raw"):
        sparse_disk(name, 700 * MIB, seed=len(name), pieces=3)
    cairn("convert", "-q", "--for", "gcp", "-f", "raw", "a.raw", "b.raw", "image.tar.gz")
    with tarfile.open("image.tar.gz") as archive:
        assert archive.getmember("disk.raw").size == 2 * GIB


@pytest.mark.parametrize(
    "words, target, message",
    [
        (
            ["--for", "mars"],
            "a.raw",
            "Known are aws, azure, gcp, hyperv, openstack, proxmox, virtualbox, vsphere (--for).",
        ),
        (["--for", "gcp"], "a.raw", "takes tar.gz archives only"),
        (["--for", "gcp", "-O", "qcow2"], "a.tar.gz", "takes tar.gz archives only"),
        (["--for", "hyperv"], "a.vhd", "takes VHDX images only"),
        (["--for", "virtualbox"], "a.qcow2", "takes VDI images only"),
        (
            ["--for", "vsphere", "-o", "subformat=monolithicFlat"],
            "a.vmdk",
            "subformat=streamOptimized only",
        ),
        (["--for", "gcp", "-c"], "a.tar.gz", "no compressed"),
        (["--for", "aws", "-n"], "a.raw", "new image"),
        (["--for", "proxmox"], "a.vmdk", "takes qcow2 and raw images only"),
    ],
)
def test_what_the_maker_does_not_take_is_refused(disk, cairn, folder, words, target, message):
    failed = cairn("convert", *words, disk, target, ok=False)
    assert failed.code == 1 and message in failed.err and not (folder / target).exists()


def test_a_disk_that_is_too_large(folder, cairn):
    cairn("create", "-q", "-f", "qcow2", "huge.qcow2", "20T")
    failed = cairn("convert", "--for", "aws", "huge.qcow2", "a.raw", ok=False)
    assert failed.code == 1 and "16 TiB at most" in failed.err and not (folder / "a.raw").exists()
    cairn("create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", "huge2.qcow2", "65T")
    failed = cairn("convert", "--for", "gcp", "huge2.qcow2", "a.tar.gz", ok=False)
    assert failed.code == 1 and "at most" in failed.err and not (folder / "a.tar.gz").exists()


def test_the_presets_are_listed(cairn):
    text = cairn("convert", "--for", "help").out
    for name in ("aws", "azure", "gcp", "hyperv", "openstack", "proxmox", "virtualbox", "vsphere"):
        assert f"\n{name} " in "\n" + text

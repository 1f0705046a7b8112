"""Images that the program for Windows makes are those of the program for Linux, byte by byte."""
import json
import time

import pytest

from conftest import sparse_disk
from samples import samples
from wine import linux, windows

pytestmark = [pytest.mark.any_engine, pytest.mark.slow]

PLAIN = [sample for sample in samples() if sample.plain()]
SECRET = [sample for sample in samples() if not sample.plain() and "@" not in sample.options]
MIB = 1 << 20
# Bytes between two that differ belong to the same number, or text.
NEAR = 16


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A source, and a folder for each program."""
    top = tmp_path_factory.mktemp("formats")
    sparse_disk(top / "source.raw", 5 * MIB, pieces=40)
    (top / "key").write_text("a passphrase")
    for name in ("first", "second", "windows"):
        (top / name).mkdir()
    return top


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def clear(*folders):
    for folder in folders:
        for path in folder.iterdir():
            path.unlink()


def changing(first, second):
    """The ranges in which two images differ that were made alike: identifiers, times and what they decide."""
    ranges = []
    for start in range(0, min(len(first), len(second)), 4096):
        one, two = first[start : start + 4096], second[start : start + 4096]
        if one == two:
            continue
        for at in (start + i for i in range(min(len(one), len(two))) if one[i] != two[i]):
            if ranges and at <= ranges[-1][1] + NEAR:
                ranges[-1][1] = at + NEAR
            else:
                ranges.append([max(0, at - NEAR), at + NEAR])
    return ranges


def masked(data, ranges):
    out = bytearray(data)
    for begin, end in ranges:
        end = min(end, len(out))
        out[begin:end] = bytes(end - begin)
    return bytes(out)


def same_images(places, *words):
    """Runs the command line WORDS in each folder and compares what is there then."""
    clear(places / "first", places / "second", places / "windows")
    linux(*words, cwd=places / "first")
    until = time.time() + 1.05
    windows(*words, cwd=places / "windows")
    # Times in images count seconds.
    time.sleep(max(0, until - time.time()))
    linux(*words, cwd=places / "second")
    first, second, ours = (files(places / name) for name in ("first", "second", "windows"))
    assert list(ours) == list(first)
    for name, data in ours.items():
        assert len(data) == len(first[name]), name
        ranges = changing(first[name], second[name])
        hidden = sum(end - begin for begin, end in ranges)
        assert hidden < 4096, f"{name}: identifiers alone may differ, not {hidden} bytes"
        assert masked(data, ranges) == masked(first[name], ranges), name


@pytest.mark.parametrize("sample", PLAIN, ids=str)
def test_converted_images_are_equal(places, sample):
    same_images(places, "convert", "-q", "../source.raw", *sample.words(), f"disk.{sample.format}")


@pytest.mark.parametrize(
    "options",
    [
        ["qcow2"],
        ["qcow2", "-o", "compression_type=zstd"],
        ["vmdk", "-o", "subformat=streamOptimized"],
    ],
)
def test_compressed_images_are_equal(places, options):
    same_images(places, "convert", "-q", "-c", "../source.raw", "-O", *options, "disk")


@pytest.mark.parametrize("sample", SECRET, ids=str)
def test_encrypted_images_have_the_same_content(places, sample):
    clear(places / "windows")
    key = ["--object", "secret,id=s0,file=../key"]
    image = f"disk.{sample.format}"
    windows("convert", "-q", *key, "../source.raw", *sample.words(), image, cwd=places / "windows")
    options = f"driver={sample.format},file.filename={image},"
    options += {"qcow2": "encrypt.", "qcow": "encrypt."}.get(sample.format, "") + "key-secret=s0"
    linux(
        *("compare", *key, "--image-opts", options, "driver=raw,file.filename=../source.raw"),
        cwd=places / "windows",
    )


def report(run, *words, cwd):
    """What WORDS report as JSON, without what depends on the file system."""
    out = json.loads(run(*words, "--output", "json", cwd=cwd).out)

    def plain(value):
        if isinstance(value, dict):
            return {
                key: plain(each)
                for key, each in value.items()
                if key not in ("actual-size", "date-sec", "date-nsec")
            }
        return [plain(each) for each in value] if isinstance(value, list) else value

    return plain(out)


def test_verbs_on_one_image(places):
    """What is done to an image there is what is done here."""
    for name, run in (("first", linux), ("windows", windows)):
        folder = places / name
        clear(folder)
        run("convert", "-q", "../source.raw", "-O", "qcow2", "base.qcow2", cwd=folder)
        run(
            "create",
            "-q",
            "-f",
            "qcow2",
            "-b",
            "base.qcow2",
            "-F",
            "qcow2",
            "top.qcow2",
            cwd=folder,
        )
        run("resize", "-q", "top.qcow2", "9M", cwd=folder)
        run("snapshot", "-q", "-c", "one", "top.qcow2", cwd=folder)
        run("io", "-c", "write -P 7 1M 64k", "top.qcow2", cwd=folder)
        run("check", "-q", "top.qcow2", cwd=folder)
        run("snapshot", "-q", "-a", "one", "top.qcow2", cwd=folder)
        run("snapshot", "-q", "-d", "one", "top.qcow2", cwd=folder)
        run("commit", "-q", "top.qcow2", cwd=folder)
        run("rebase", "-q", "-u", "-b", "", "top.qcow2", cwd=folder)
    for words in (
        ("info", "top.qcow2"),
        ("info", "base.qcow2"),
        ("measure", "-O", "vmdk", "base.qcow2"),
        ("hash", "base.qcow2"),
        ("check", "base.qcow2"),
    ):
        assert report(windows, *words, cwd=places / "windows") == report(
            linux, *words, cwd=places / "first"
        ), words
    linux("compare", "windows/base.qcow2", "first/base.qcow2", cwd=places)

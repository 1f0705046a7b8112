"""docs/troubleshooting.md quotes messages that are real."""
import re

import pytest

from conftest import TOP, sparse_disk
from plain_words import messages

pytestmark = pytest.mark.any_engine

PAGE = (TOP / "docs/troubleshooting.md").read_text()
QUOTED = [line.strip() for line in PAGE.splitlines() if line.startswith("    ")]


# Command lines, and what each of them prints.
PRINTED = [
    (
        ["convert", "disk.raw", "disk.qcow2"],
        [
            "'…' exists already",
            "Give another name, or allow the file to be replaced (--overwrite).",
        ],
    ),
    (["convert", "-O", "qocw2", "disk.raw", "new"], ["Unknown file format '…'; did you mean '…'?"]),
    (["convert", "disk.raw", "new.zip"], ["the ending '…' stands for no format that is known"]),
    (
        ["hash", "cut.qcow2"],
        [
            "the data of the disk at offset … is past the end of the file (… bytes); the file was cut off",
            "Get the file again from where it came; `cairn convert --salvage` keeps what is left, with zeroes for what is missing.",
        ],
    ),
    (
        ["compare", "lost.qcow2", "disk.raw"],
        ["Could not open backing file", "Could not open '…': No such file or directory"],
    ),
    (
        ["commit", "overlay.qcow2"],
        [
            "internal snapshot that shows other content when its backing file changes",
            "Nothing was changed. Copy the snapshots first with `cairn convert -l`, or give them up (--force).",
        ],
    ),
    (["resize", "disk.qcow2", "1k"], ["Use the --shrink option to perform a shrink operation."]),
    (["umount", "disk.raw"], ["Nothing is mounted on '…'"]),
    (
        ["info", "--force", "disk.raw"],
        ["unrecognized option '…'; did you mean '…'?", "Try '… --help' for more information"],
    ),
    (["info", "nbd://127.0.0.1:1/"], ["Failed to connect to '…'"]),
]


@pytest.fixture(scope="module")
def texts():
    found = [
        text.replace('\\"', '"')
        for path in (TOP / "src").rglob("*")
        if path.suffix in (".cc", ".h")
        for _, text in messages(path)
    ]
    return "\n".join([*found, (TOP / "cairn").read_text(), (TOP / "tools/setup.sh").read_text()])


@pytest.mark.parametrize("message", QUOTED)
def test_quoted_messages_are_in_the_sources(texts, message):
    if message == "No space left on device" or any(
        message in quoted for _, quoted in PRINTED
    ):  # the system's, or run below
        return
    message = re.sub(r'"write"', '"…"', message)
    for part in message.split("…"):
        if len(part.strip(" '[]?.")) >= 4:
            assert part in texts, part


@pytest.mark.parametrize("words, quoted", PRINTED)
def test_quoted_messages_are_printed(folder, cairn, words, quoted):
    sparse_disk("disk.raw", 1 << 20)
    cairn("convert", "disk.raw", "disk.qcow2")
    cairn("convert", "disk.raw", "cut.qcow2")
    with open("cut.qcow2", "r+b") as image:
        image.truncate((folder / "cut.qcow2").stat().st_size - 70000)
    cairn("create", "-q", "-u", "-b", "none.qcow2", "-F", "qcow2", "lost.qcow2", "1M")
    cairn("create", "-q", "-b", "disk.qcow2", "-F", "qcow2", "overlay.qcow2")
    cairn("snapshot", "-c", "monday", "overlay.qcow2")
    done = cairn(*words, ok=False)
    assert done.code != 0
    for message in quoted:
        assert message in QUOTED
        assert re.search(".*".join(map(re.escape, message.split("…"))), done.err), (
            message,
            done.err,
        )

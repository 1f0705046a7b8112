"""`--output json`: the examples of docs/json.md are real, and its tables name the keys that are printed."""
import json
import os
import re
import shlex
import subprocess
import time

import pytest

from conftest import CAIRN, TOP, call, sparse_disk
from mounts import is_mounted
from qmp import Daemon

pytestmark = [pytest.mark.any_engine, pytest.mark.words]

# Shaped by QEMU: no schema.
QEMUS = {"check", "info", "map", "measure"}


def read_page():
    """Of each section: its command lines with the object below each, and the keys of its table (true: always there)."""
    sections = {}
    for text in re.split(r"^## ", (TOP / "docs/json.md").read_text(), flags=re.M)[1:]:
        title, _, body = text.partition("\n")
        examples = []
        for block in re.findall(r"^```\n(.*?)^```", body, re.M | re.S):
            for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
                line, _, printed = part.partition("\n")
                examples.append((line, json.loads(printed)))
        keys = {
            key: not optional
            for key, optional in re.findall(r"^\| `([^`]+)`( \*\*\?\*\*)? \|", body, re.M)
        }
        if keys:
            sections[title] = examples, keys
    return sections


PAGE = read_page()


def verbs():
    return re.findall(r"^  ([a-z]+) +\S", call(CAIRN, "help").out, re.M)


def paths(value, at="", into=None):
    """All keys of VALUE as the tables write them, with how often each occurs."""
    into = {} if into is None else into
    if isinstance(value, list):
        for one in value:
            if isinstance(one, (dict, list)):
                paths(one, at + "[]", into)
    elif isinstance(value, dict):
        into.setdefault(at, []).append(set(value))
        for key, one in value.items():
            paths(one, f"{at}.{key}" if at else key, into)
    return into


def keys_of(value):
    return {
        f"{at}.{key}" if at else key
        for at, sets in paths(value).items()
        for keys in sets
        for key in keys
    }


def outline(documented):
    """The documented keys of each object: {"snapshots[]": {"id": True, …}, "": {…}}."""
    objects = {}
    for path, always in documented.items():
        at, _, key = path.rpartition(".")
        objects.setdefault(at, {})[key] = always
        if at.endswith("[]") and at != "[]":
            above, _, array = at[:-2].rpartition(".")
            objects.setdefault(above, {}).setdefault(array, False)
    return objects


@pytest.fixture
def images(folder, cairn):
    sparse_disk("disk.raw", 1 << 20)
    cairn("convert", "disk.raw", "disk.qcow2")
    cairn("convert", "-c", "disk.raw", "compressed.qcow2")
    cairn("create", "-q", "cut.qcow2", "1M")
    cairn("io", "-c", "write 0 384k", "cut.qcow2")
    os.truncate("cut.qcow2", os.path.getsize("cut.qcow2") - 65536)
    cairn("create", "-q", "-b", "disk.qcow2", "-F", "qcow2", "overlay.qcow2")
    cairn("io", "-c", "write -P 9 192k 64k", "overlay.qcow2")
    cairn("convert", "disk.raw", "snapshots.qcow2")
    cairn("snapshot", "-c", "monday", "snapshots.qcow2")
    cairn("bitmap", "--add", "snapshots.qcow2", "since-monday")
    (folder / "key").write_text("secret")
    cairn("create", "-q", "--key-file", "key", "-o", "iter-time=10", "secret.luks", "1M")
    # One used cluster is free by its count, and one more is counted that nothing uses.
    image = bytearray((folder / "disk.qcow2").read_bytes())
    block = int.from_bytes(image[65536:65544], "big")
    image[block + 8 : block + 10] = b"\0\0"
    clusters = -(-len(image) // 65536)
    image[block + 2 * clusters : block + 2 * clusters + 2] = b"\0\1"
    (folder / "damaged.qcow2").write_bytes(image.ljust((clusters + 1) * 65536, b"\0"))
    # An MBR with a Linux partition of 512 KiB.
    disk = bytearray((folder / "disk.raw").read_bytes())
    disk[446:462] = (
        bytes([0, 0, 0, 0, 0x83, 0, 0, 0])
        + (8).to_bytes(4, "little")
        + (1024).to_bytes(4, "little")
    )
    disk[462:512] = bytes(48) + b"\x55\xaa"
    (folder / "partitions.raw").write_bytes(disk)
    (folder / "mounted").mkdir()
    return folder


def read_object(job):
    """What JOB prints first, while it goes on."""
    text = ""
    for line in job.stdout:
        text += line
        try:
            return json.loads(text)
        except ValueError:
            continue
    raise AssertionError((job.wait(), job.stderr.read()))


def run(line):
    """The object that a command line of the page prints; what it left running is ended."""
    words = shlex.split(line)
    assert words.pop(0) == "cairn"
    if words[0] == "umount":
        call(CAIRN, "mount", "--fork", "-q", "disk.qcow2", words[-1])
    if words[0] == "restore":
        call(CAIRN, "backup", "-q", "disk.qcow2", "backups")
    if words[0] == "nbd":
        with subprocess.Popen(
            [CAIRN, "serve", "-D", "a disk", "-k", "nbd.sock", "disk.qcow2"],
            stdout=subprocess.PIPE,
            text=True,
        ) as server:
            assert server.stdout.readline().startswith("nbd+unix:")
            words = [word.replace("$PWD", os.getcwd()) for word in words]
            try:
                return call(CAIRN, *words).json()
            finally:
                server.terminate()
    if words[0] == "ctl":
        with Daemon([CAIRN, "daemon"], directory=os.getcwd()) as daemon:
            words[words.index("qmp.sock")] = str(daemon.path)
            return call(CAIRN, *words).json()
    if words[0] not in ("serve", "mount"):
        done = call(CAIRN, *words, ok=False)
        assert done.out, (line, done.code, done.err)
        printed = done.json()
        if words[0] == "nvme":
            printed["controllers"] = []  # of the machine that runs the tests
        return printed
    job = subprocess.Popen(
        [CAIRN, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        printed = read_object(job)
        assert printed["pid"] == job.pid
    finally:
        job.terminate()
        out, _ = job.communicate(timeout=20)
    assert out == ""
    return printed


def test_every_verb_has_a_section():
    tools = {"nbd", "daemon"}
    assert set(PAGE) - {"convert --for help", "nbd --list"} == set(verbs()) - tools


@pytest.mark.parametrize("section", PAGE)
def test_examples_and_tables(images, section):
    examples, documented = PAGE[section]
    objects = outline(documented)
    seen = {}
    for line, shown in examples:
        printed = run(line)
        assert keys_of(shown) == keys_of(printed), line
        if section in QEMUS:
            assert "schema" not in printed
        else:
            name = {"convert --for help": "presets"}.get(section, section.split()[0])
            assert printed["schema"] == f"cairn/{name}/1" and list(printed)[0] == "schema"
        found = paths(printed)
        for at, known in objects.items():
            for keys in found.get(at, []):
                assert {key for key, always in known.items() if always} <= keys <= set(known), (
                    line,
                    at,
                )
                seen.setdefault(at, set()).update(keys)
    assert {at: set(known) for at, known in objects.items()} == seen


@pytest.mark.parametrize("verb", sorted(set(verbs()) - {"nbd", "daemon"}))
def test_what_is_neither_human_nor_json(folder, cairn, ours, verb):
    done = cairn(verb, "--output", "xml", *(["a"] if verb == "formats" else []), ok=False)
    assert (
        done.code in (1, 2)
        and "--output must be used with human or json" in done.err
        and done.out == ""
    )
    if verb in QEMUS:
        return
    assert ours(verb, "--output", "json", ok=False).code in (1, 2)


def test_io_keeps_its_exit_code_and_reads_standard_input(images, cairn, ours):
    done = cairn("io", "--output=json", "-c", "read -P 9 0 512", "disk.raw", "-f", "raw", ok=False)
    assert done.code == 1 and done.json()["commands"][0]["succeeded"] is False
    typed = "aio_write -P 5 0 4k\naio_flush\nlength\n"
    printed = cairn("io", "--output", "json", "disk.qcow2", input=typed).json()["commands"]
    assert [one["command"] for one in printed] == typed.splitlines()
    assert [len(one["results"]) for one in printed] == [1, 0, 0]
    assert printed[2]["output"] == "1 MiB\n"
    assert ours("io", "--output", "json", ok=False).code == 1


def test_nbd_prints_json_of_lists_only(images, cairn):
    for words in (["-k", "/nowhere/sock", "disk.qcow2"], ["-L", "-k", "/nowhere/sock"]):
        done = cairn("nbd", *words, "--output", "json", ok=False)
        assert done.code == 1 and done.out == "" and done.err, words
    assert "belongs to --list" in cairn("nbd", "--output=json", "disk.qcow2", ok=False).err


def test_failures_print_no_object_and_keep_their_codes(images, cairn):
    for words, code in (
        (["compare", "disk.raw", "none"], 2),
        (["resize", "disk.qcow2", "1k"], 1),
        (["create", "disk.qcow2", "1M"], 1),
        (["convert", "disk.raw", "disk.qcow2"], 1),
        (["check", "disk.raw"], 63),
        (["snapshot", "-a", "none", "disk.qcow2"], 1),
    ):
        done = cairn(*words, "--output", "json", ok=False)
        assert (done.code, done.out) == (code, "") and done.err.startswith("cairn: "), words
    assert cairn("compare", "disk.raw", "overlay.qcow2", "--output", "json", ok=False).code == 1
    assert cairn("check", "damaged.qcow2", "--output", "json", ok=False).code == 2


def test_the_object_is_alone_on_standard_output(images, cairn):
    for words in (
        ["convert", "-p", "disk.raw", "copy.qcow2"],
        ["create", "new.vdi", "1M"],
        ["commit", "-p", "overlay.qcow2"],
        ["compact", "-p", "-q", "disk.qcow2"],
        ["hash", "-p", "disk.raw"],
        ["convert", "-p", "--progress", "json", "disk.raw", "copy.vdi"],
        ["hash", "--untrusted", "disk.qcow2"],
    ):
        assert cairn(*words, "--output=json").json()["schema"] == f"cairn/{words[0]}/1"


def test_the_object_stays_out_of_an_image_on_standard_output(images):
    with open("copy.raw", "wb") as out:
        done = subprocess.run(
            [CAIRN, "convert", "--output=json", "-O", "raw", "disk.qcow2", "-"],
            stdout=out,
            stderr=subprocess.PIPE,
            check=True,
        )
    assert json.loads(done.stderr)["target"] == "-"
    assert (images / "copy.raw").read_bytes() == (images / "disk.raw").read_bytes()


def test_a_mount_in_the_background_has_told_all(images, cairn):
    told = cairn("mount", "--fork", "--output=json", "disk.qcow2", "mounted.raw").json()
    assert is_mounted(told["mount-point"]) and told["virtual-size"] == 1 << 20
    cairn("umount", "mounted.raw")
    deadline = time.monotonic() + 10
    while is_mounted(told["mount-point"]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_mounted(told["mount-point"])

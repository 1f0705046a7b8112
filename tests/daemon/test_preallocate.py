"""The filter preallocate: sizes of the file below it at every step, next to qemu-storage-daemon."""
import os
import subprocess

import pytest
from conftest import CAIRN
from job_disks import both, pair, run, same

FILTER = "preallocate"


@pytest.fixture
def files(both):
    for one in both:
        run("qemu-img", "create", "-q", "-f", "qcow2", one.path("grows"), "64M")
        with open(one.path("fixed"), "wb") as file:
            file.truncate(1 << 20)
        socket = {"type": "unix", "data": {"path": str(one.directory / "nbd.sock")}}
        one.ask("nbd-server-start", addr=socket)
    yield both
    for one in both:
        one.ask("nbd-server-stop")


def put_filter(one, name, **options):
    file = {"driver": "file", "filename": one.path(name), "node-name": "bytes"}
    reply = one.ask("blockdev-add", driver=FILTER, node_name="ahead", file=file, **options)
    return str(reply).replace(str(one.directory), "")


def export(one, node):
    return one.ask("block-export-add", type="nbd", id="e", node_name=node, name="e", writable=True)


def do(one, *commands):
    words = [word for command in commands for word in ("-c", command)]
    run("qemu-io", "-f", "raw", *words, f"nbd+unix:///e?socket={one.directory}/nbd.sock")


def size(one, name):
    found = os.stat(one.path(name))
    return found.st_size, found.st_blocks * 512 // 65536


@pytest.mark.parametrize(
    "options",
    [{}, {"prealloc_size": 10000, "prealloc_align": 65536}, {"prealloc_size": 1 << 20}],
    ids=["defaults", "small", "a megabyte"],
)
def test_a_file_grows_ahead_and_is_cut(files, options):
    def steps(one):
        said = [put_filter(one, "grows", **options)]
        said.append(one.ask("blockdev-add", driver="qcow2", node_name="image", file="ahead"))
        said += [size(one, "grows"), export(one, "image"), size(one, "grows")]
        for command in ("write -P 1 0 64k", "write -P 2 20M 64k", "write -z 30M 64k"):
            do(one, command)
            said.append(size(one, "grows"))
        do(one, "write -P 3 40M 1M", "read -P 1 0 64k", "read -P 2 20M 64k", "read -P 0 30M 64k")
        said.append(size(one, "grows"))
        nodes = one.ask("query-named-block-nodes", flat=True)["return"]
        said += [n["image"]["virtual-size"] for n in nodes if n["node-name"] == "ahead"]
        said.append(one.ask("block-export-del", id="e"))
        said.append(size(one, "grows"))
        # Who only reads needs no space.
        reopened = {"driver": "qcow2", "node-name": "image", "file": "ahead", "read-only": True}
        said.append(one.ask("blockdev-reopen", options=[reopened]))
        said.append(size(one, "grows"))
        del reopened["read-only"]
        said += [one.ask("blockdev-reopen", options=[reopened]), export(one, "image")]
        do(one, "write -P 4 50M 64k")
        said += [size(one, "grows"), one.ask("block-export-del", id="e")]
        said.append(one.ask("blockdev-del", node_name="image"))
        said.append(size(one, "grows"))
        said.append(one.ask("blockdev-del", node_name="ahead"))
        return [*said, size(one, "grows")]

    same(files, steps)
    for one in files:
        run("qemu-img", "check", "-q", one.path("grows"))
    run("qemu-img", "compare", "-q", files[0].path("grows"), files[1].path("grows"))


def test_what_cannot_grow_is_left_alone(files):
    def steps(one):
        said = [put_filter(one, "fixed", prealloc_size=1 << 20), export(one, "ahead")]
        do(one, "write 0 64k", "write 512k 512k")
        said += [size(one, "fixed"), one.ask("block-export-del", id="e")]
        said.append(one.ask("block_resize", node_name="ahead", size=2 << 20))
        said += [size(one, "fixed"), one.ask("block_resize", node_name="ahead", size=1 << 20)]
        said += [size(one, "fixed"), one.ask("blockdev-del", node_name="ahead")]
        return [*said, size(one, "fixed")]

    same(files, steps)


@pytest.mark.parametrize(
    "options",
    [
        {"prealloc_align": 100},
        {"prealloc_align": 0},
        {"prealloc_size": 0},
        {"prealloc_align": -512},
        {"prealloc_size": -1},
        {"prealloc_size": "x"},
    ],
    ids=str,
)
def test_options(files, options):
    def steps(one):
        said = put_filter(one, "fixed", **options)
        one.ask("blockdev-del", node_name="ahead")
        return said

    same(files, steps)


def test_a_verb_leaves_no_space_behind(files, cairn):
    """Without a daemon the filter cuts when it is closed."""
    ours = files[0]
    image = f"driver=qcow2,file.driver={FILTER},file.file.filename={ours.path('grows')}"
    cairn("io", "--image-opts", "-c", "write -P 5 1M 64k", image)
    assert size(ours, "grows")[0] < 1 << 20, size(ours, "grows")
    run("qemu-img", "check", "-q", ours.path("grows"))
    shown = subprocess.run(
        ["qemu-io", "-f", "qcow2", "-r", "-c", "read -P 5 1M 64k", ours.path("grows")],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "failed" not in shown.stdout


@pytest.mark.parametrize("mode", ["off", "metadata", "falloc", "full"])
@pytest.mark.parametrize("size", ["50M", "200M"])
def test_a_resize_within_and_past_what_is_allocated(mode, size, tmp_path):
    found = []
    for program in (CAIRN.parent / "compat" / "qemu-io", "qemu-io"):
        image = tmp_path / "grows"
        run("qemu-img", "create", "-q", "-f", "qcow2", image, "10M")
        options = f"driver=qcow2,file.driver={FILTER},file.file.filename={image}"
        words = ["-c", "write -P 5 0 10M", "-c", f"truncate -m {mode} {size}"]
        run(program, "--image-opts", *words, options)
        run("qemu-img", "check", "-q", image)
        run(
            "qemu-io",
            "-r",
            "-f",
            "qcow2",
            "-c",
            "read -P 5 0 10M",
            "-c",
            "read -P 0 10M 40M",
            image,
        )
        known = os.stat(image)
        found.append((known.st_size, known.st_blocks // 2048))
    assert found[0] == found[1]

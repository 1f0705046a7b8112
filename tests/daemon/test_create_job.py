"""Images that blockdev-create makes: of several files, and over options in place of nodes."""
import json
import subprocess

import pytest
from job_disks import MIB, OURS, Disks, both, pair, run, same
from qmp import Daemon

pytestmark = pytest.mark.any_engine
GIB = 1 << 30
LUKS = {"driver": "luks", "size": MIB, "key-secret": "s", "iter-time": 10}
FILES = ("one", "two", "three")


def inline(one, name, **more):
    return {"driver": "file", "filename": one.path(name), **more}


def qcow2(**more):
    return lambda one: {"driver": "qcow2", "size": MIB, "file": "one", **more}


def vmdk(*extents, **more):
    return lambda one: {
        "driver": "vmdk",
        "size": 3 * GIB if len(extents) > 1 else MIB,
        "file": "one",
        "extents": list(extents),
        **more,
    }


CASES = {
    "a file by its options": lambda one: {**qcow2()(one), "file": inline(one, "one")},
    "a file that is not there": lambda one: {**qcow2()(one), "file": inline(one, "none")},
    "a read-only file": lambda one: {
        **qcow2()(one),
        "file": inline(one, "one", **{"read-only": True}),
    },
    "a file below a format": lambda one: {
        **qcow2()(one),
        "file": {"driver": "raw", "file": "one"},
    },
    "a data file": qcow2(**{"data-file": "two"}),
    "a data file by its options": lambda one: {
        **qcow2(**{"data-file-raw": True, "preallocation": "full"})(one),
        "data-file": inline(one, "two"),
    },
    "a data file of an old version": qcow2(**{"data-file": "two", "version": "v2"}),
    "a data file that is not there": qcow2(**{"data-file": "none"}),
    "a raw data file without a file": qcow2(**{"data-file-raw": True}),
    "a raw data file below a backing file": qcow2(
        **{"data-file": "two", "data-file-raw": True, "backing-file": "x"}
    ),
    "a volume": lambda one: {**LUKS, "file": "one", "preallocation": "full"},
    "a volume in qcow2": qcow2(encrypt={"format": "luks", "key-secret": "s", "iter-time": 10}),
    "a flat extent": vmdk("two", subformat="monolithicFlat"),
    "flat extents": vmdk("two", "three", subformat="twoGbMaxExtentFlat"),
    "sparse extents": vmdk("two", "three", subformat="twoGbMaxExtentSparse", hwversion="7"),
    "an extent by its options": lambda one: {
        **vmdk(subformat="monolithicFlat", **{"adapter-type": "lsilogic"})(one),
        "extents": [inline(one, "two")],
    },
    "an extent too few": vmdk("two", subformat="twoGbMaxExtentFlat", size=3 * GIB),
    "an extent too many": vmdk("two", "three", subformat="monolithicFlat", size=MIB),
    "an extent of one file": vmdk("two"),
    "an extent that is not there": vmdk("none", subformat="monolithicFlat"),
    "a stream": vmdk(subformat="streamOptimized"),
    "no size": lambda one: {"driver": "qcow2", "file": "one"},
    "no format": lambda one: {"driver": "null-co"},
}

# The reference keeps the file of a volume in use for ever once there was a header apart from it.
HEADERS = {
    "a header": lambda one: {**LUKS, "header": "one", "file": "two"},
    "a header by its options": lambda one: {**LUKS, "header": inline(one, "one"), "file": "two"},
    "a header alone": lambda one: {**LUKS, "header": "one"},
    "no header": lambda one: LUKS,
}


def begin(one):
    """Empty files, each in a node; there is a secret."""
    one.ask("object-add", **{"qom-type": "secret", "id": "s", "data": "pass"})
    for name in FILES:
        with open(one.path(name), "wb"):
            pass
        one.ask("blockdev-add", **{"driver": "file", "filename": one.path(name), "node-name": name})
        one.names.append(name)


def create(one, options):
    """The reply, and how the job ended."""
    reply = one.ask("blockdev-create", job_id="c", options=options)
    if "error" in reply:
        return reply
    one.until("concluded c")
    jobs = one.ask("query-jobs")
    one.ask("job-dismiss", id="c")
    return jobs


@pytest.mark.parametrize("case", HEADERS)
def test_headers(case, tmp_path):
    with Daemon(OURS) as ours, Daemon("qemu-storage-daemon") as theirs:
        both = Disks(ours, tmp_path / "ours"), Disks(theirs, tmp_path / "theirs")
        compare(both, HEADERS[case])
        for one in both:
            one.client.close()


@pytest.mark.parametrize("case", CASES)
def test_as_the_reference(both, case):
    compare(both, CASES[case])


def compare(both, options):
    """The events, replies and images are the same."""

    def steps(one):
        begin(one)
        reply = create(one, options(one))
        one.ask("object-del", id="s")
        # Names of directories.
        return json.loads(json.dumps(reply).replace(str(one.directory), ""))

    reply, _ = same(both, steps)
    made = [facts_of(one) for one in both]
    if "error" not in json.dumps(reply):
        assert made[0] == made[1]


def facts_of(one):
    """What the reference finds in the files, without what is chance."""
    facts = []
    for name in FILES:
        path = one.path(name)
        words = ["qemu-img", "info", "-U", "--output=json", path]
        done = subprocess.run(words, capture_output=True, text=True)
        facts.append(done.returncode)
        if done.returncode == 0:
            found = json.loads(done.stdout.replace(str(one.directory), ""))
            specific = found.get("format-specific", {}).get("data", {})
            for chance in ("cid", "uuid", "slots", "master-key-iters"):
                specific.pop(chance, None)
                specific.get("encrypt", {}).pop(chance, None)
            facts += [found["format"], found["virtual-size"], specific]
    return facts


def test_the_files_are_one_image(both):
    """What is written through the image is in its other file."""
    for one in both:
        begin(one)
        for options in (
            qcow2(**{"data-file": "two"})(one),
            vmdk("two", subformat="monolithicFlat")(one),
        ):
            assert "error" not in json.dumps(create(one, options))
        one.ask("object-del", id="s")
        for name in FILES:
            one.ask("blockdev-del", **{"node-name": name})
            one.names.remove(name)
        path = one.path("one")
        run("qemu-io", "-f", "vmdk", "-c", "write -P 9 64k 64k", path)
        with open(one.path("two"), "rb") as extent:
            assert extent.read(128 << 10) == bytes(64 << 10) + b"\x09" * (64 << 10)


def test_a_file_cannot_be_two(both):
    """The reference makes an image of which two parts are the same bytes."""
    one = both[0]
    begin(one)
    for options, text in (
        (
            vmdk("two", "two", subformat="twoGbMaxExtentFlat"),
            "Node 'two' cannot be 'extents.0' and 'extents.1' of one image",
        ),
        (
            vmdk("one", subformat="monolithicFlat"),
            "Node 'one' cannot be 'extents.0' and 'file' of one image",
        ),
        (
            qcow2(**{"data-file": "one"}),
            "Node 'one' cannot be 'data-file' and 'file' of one image",
        ),
    ):
        assert create(one, options(one))["return"][0]["error"] == text
    one.ask("object-del", id="s")


def test_an_image_grows_over_a_node_of_raw(both):
    """It is named, and could have other users."""
    for one in both:
        begin(one)
        one.ask("blockdev-add", **{"driver": "raw", "node-name": "raw", "file": "one"})
        one.names.append("raw")
        assert "error" not in json.dumps(create(one, {**qcow2()(one), "file": "raw"}))
        one.ask("blockdev-add", **{"driver": "qcow2", "node-name": "image", "file": "raw"})
        one.names.append("image")
        path = one.directory / "nbd.sock"
        one.ask("nbd-server-start", addr={"type": "unix", "data": {"path": str(path)}})
        one.ask("block-export-add", type="nbd", id="e", node_name="image", writable=True)
        url = f"nbd+unix:///image?socket={path}"
        run("qemu-io", "-f", "raw", *("-c", "write -P 3 0 1M"), *("-c", "read -P 3 0 1M"), url)
        one.ask("nbd-server-stop")
        one.ask("object-del", id="s")

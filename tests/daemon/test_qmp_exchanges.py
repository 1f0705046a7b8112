"""The same commands to our daemon and to qemu-storage-daemon, reply by reply."""
import json
import shutil
import subprocess

import pytest
from conftest import CAIRN
from qmp import Daemon, comparable

pytestmark = [pytest.mark.any_engine, pytest.mark.words]

OURS = CAIRN.parent / "compat" / "qemu-storage-daemon"


def run(command, /, **arguments):
    """A request; __ in names of arguments stands for -."""
    request = {"execute": command}
    if arguments:
        request["arguments"] = {key.replace("__", "-"): value for key, value in arguments.items()}
    return request


def add(driver, name, /, **options):
    return run("blockdev-add", driver=driver, node__name=name, **options)


def null(name, /, **options):
    return add("null-co", name, **options)


def delete(name):
    return run("blockdev-del", node__name=name)


def export(id, node, /, **options):
    return run("block-export-add", type="nbd", id=id, node__name=node, **options)


UNIX = {"type": "unix", "data": {"path": "nbd.sock"}}
FILE = {"driver": "file", "filename": "disk.raw"}
TOP = {"driver": "file", "filename": "top.qcow2"}

# What every command says to arguments that are wrong in form: the schema's own words.
FORMS = [
    run("blockdev-add"),
    run("blockdev-add", driver="zz"),
    run("blockdev-add", driver=5),
    run("blockdev-add", driver="file", filename=5),
    run("blockdev-add", driver="raw", file=5, x=1),
    run("blockdev-add", driver="raw", file="q", cache={"direct": 1}, x=1),
    run("blockdev-add", driver="raw", file={"driver": "file"}, x=1),
    run("blockdev-add", driver="raw", file={"driver": "file", "filename": "x", "y": 1}),
    run("blockdev-add", driver="null-co", size=1.5, node__name="a"),
    run("blockdev-add", driver="null-co", size="1", node__name="a"),
    run("blockdev-add", driver="null-co", size=18446744073709551615, node__name="a"),
    run("blockdev-add", driver="null-co", read__zeroes=1, node__name="a"),
    run("blockdev-add", driver="nbd", server={"type": "inet"}),
    run("blockdev-add", driver="nbd", server={"type": "unix", "path": 1}),
    run("blockdev-add", driver="nbd", server={"type": "zz"}),
    run("blockdev-add", driver="qcow2", file="a", backing=5),
    run("blockdev-add", driver="quorum", children="a"),
    run("blockdev-add", driver="quorum", children=[{"driver": "raw"}], vote__threshold=1),
    run("blockdev-del"),
    run("blockdev-del", node__name=1),
    run("blockdev-del", node__name="a", b=1),
    run("query-named-block-nodes", flat=1),
    run("query-blockstats", query__nodes="x"),
    run("nbd-server-start"),
    run("nbd-server-start", addr={"type": "unix", "path": "x"}),
    run("nbd-server-start", addr={"type": "unix", "data": {}}),
    run("nbd-server-start", addr={"type": "inet", "data": {"host": "h"}}),
    run("nbd-server-start", addr={"type": "inet", "data": {"host": "h", "port": 1}}),
    run("nbd-server-start", addr=UNIX, max__connections=-1),
    run("nbd-server-start", addr=UNIX, handshake__max__seconds="x"),
    run("nbd-server-stop", x=1),
    run("nbd-server-add"),
    run("nbd-server-remove"),
    run("nbd-server-remove", name="a", mode="b"),
    run("block-export-add"),
    run("block-export-add", type="nbd", id="e"),
    run("block-export-add", type="zz", id="e", node__name="a"),
    run("block-export-add", type="nbd", id="e", node__name="a", writable="x"),
    run("block-export-add", type="nbd", id="e", node__name="a", bitmaps=[{"node": "b"}]),
    run("block-export-add", type="nbd", id="e", node__name="a", mountpoint="x"),
    run("block-export-del"),
    run("block-export-del", id="e", mode="zz"),
    run("object-add"),
    run("object-add", qom__type="nope", id="a"),
    run("object-add", qom__type="iothread"),
    run("object-add", qom__type="iothread", id="a", poll__max__ns="x"),
    run("object-add", qom__type="iothread", id="a", zz=1),
    run("object-add", qom__type="throttle-group", id="a", limits={"zz": 1}),
    run("object-add", qom__type="throttle-group", id="a", limits=5),
    run("object-add", qom__type="tls-creds-psk", id="a", endpoint="zz"),
    run("object-del"),
    run("qom-list"),
    run("qom-get", path="/"),
    run("qom-set", path="/", property="x"),
    run("chardev-add", id="a"),
    run("chardev-add", id="a", backend={"type": "zz", "data": {}}),
    run("chardev-add", id="a", backend={"type": "socket", "data": {}}),
    run("chardev-add", id="a", backend={"type": "null", "data": {"x": 1}}),
    run("chardev-remove"),
    run("ringbuf-read", device="a"),
    run("ringbuf-write", device="a"),
    run("query-version", x=1),
    run("quit", x=1),
]

OBJECTS = [
    run("object-add", qom__type="iothread", id="io"),
    run("object-add", qom__type="iothread", id="io"),
    run("object-add", qom__type="iothread", id="1a"),
    run("object-add", qom__type="iothread", id=""),
    run("object-add", qom__type="iothread", id="io2", poll__max__ns=5, aio__max__batch=7),
    run("qom-get", path="io", property="poll-max-ns"),
    run("qom-get", path="/objects/io2", property="poll-max-ns"),
    run("qom-get", path="io2", property="aio-max-batch"),
    run("qom-get", path="io", property="thread-pool-max"),
    run("qom-get", path="io", property="type"),
    run("qom-get", path="io", property="zz"),
    run("qom-get", path="nope", property="zz"),
    run("qom-get", path="/objects/nope", property="zz"),
    run("qom-set", path="io", property="poll-max-ns", value=9),
    run("qom-get", path="io", property="poll-max-ns"),
    run("qom-set", path="io", property="poll-max-ns", value="x"),
    run("qom-set", path="io", property="zz", value=1),
    run("qom-list", path="/"),
    run("qom-list", path="/objects/nope"),
    run("qom-list-properties", typename="zz"),
    run("object-add", qom__type="throttle-group", id="tg", limits={"iops-total": 5}),
    run("object-add", qom__type="throttle-group", id="t2", x__bps__read=7),
    run(
        "object-add", qom__type="throttle-group", id="t3", limits={"iops-total": 5, "iops-read": 5}
    ),
    run("object-add", qom__type="throttle-group", id="t3", limits={"iops-size": 5}),
    run("object-add", qom__type="throttle-group", id="t3", limits={"bps-total-max": 5}),
    run(
        "object-add",
        qom__type="throttle-group",
        id="t3",
        limits={"bps-total": 9, "bps-total-max": 5},
    ),
    run("qom-get", path="tg", property="limits"),
    run("qom-get", path="t2", property="x-bps-read"),
    run("qom-get", path="tg", property="x-iops-total"),
    run("qom-set", path="tg", property="limits", value={"bps-total": 100}),
    run("qom-get", path="tg", property="limits"),
    run("qom-set", path="tg", property="limits", value={"bps-read": 100}),
    run("qom-set", path="tg", property="x-iops-total", value=1),
    null("n"),
    add("throttle", "th", throttle__group="tg", file="n"),
    add("throttle", "th2", throttle__group="nope", file="n"),
    run("object-del", id="tg"),
    delete("th"),
    run("object-del", id="tg"),
    run("object-del", id="tg"),
    run("object-del", id="io"),
    run("object-add", qom__type="secret", id="s", data="x"),
    run("object-add", qom__type="secret", id="s2"),
    run("object-add", qom__type="secret", id="s2", data="x", file="y"),
    run("object-add", qom__type="secret", id="s2", file="/nonexistent"),
    run("qom-get", path="s", property="data"),
    run("qom-get", path="s", property="format"),
    run("object-del", id="s"),
    run("object-add", qom__type="authz-simple", id="az", identity="joe"),
    run("qom-get", path="az", property="identity"),
    run("object-add", qom__type="main-loop", id="ml"),
    run("object-add", qom__type="main-loop", id="ml2"),
    delete("n"),
]

CHARDEVS = [
    run("chardev-add", id="r", backend={"type": "ringbuf", "data": {"size": 16}}),
    run("chardev-add", id="r", backend={"type": "null", "data": {}}),
    run("chardev-add", id="r2", backend={"type": "ringbuf", "data": {"size": 15}}),
    run("ringbuf-write", device="r", data="hello"),
    run("ringbuf-read", device="r", size=3),
    run("ringbuf-read", device="r", size=30),
    run("ringbuf-read", device="r", size=30),
    run("ringbuf-write", device="r", data="aGVsbG8=", format="base64"),
    run("ringbuf-read", device="r", size=30, format="base64"),
    run("ringbuf-write", device="nope", data="x"),
    run("ringbuf-read", device="r", size=0),
    run("chardev-add", id="n", backend={"type": "null", "data": {}}),
    run("ringbuf-read", device="n", size=1),
    run("chardev-send-break", id="n"),
    run("chardev-send-break", id="nope"),
    run("chardev-remove", id="r"),
    run("chardev-remove", id="nope"),
    run("chardev-remove", id="qmp"),
    run("qom-list", path="/chardevs"),
    run("chardev-change", id="nope", backend={"type": "null", "data": {}}),
    run("chardev-change", id="qmp", backend={"type": "null", "data": {}}),
    run("chardev-change", id="n", backend={"type": "zz", "data": {}}),
    run("chardev-change", id="n", backend={"type": "ringbuf", "data": {"size": 32}}),
    run("ringbuf-write", device="n", data="lost"),
    run("chardev-change", id="n", backend={"type": "ringbuf", "data": {"size": 16}}),
    run("ringbuf-read", device="n", size=30),
    run("chardev-change", id="n", backend={"type": "ringbuf", "data": {"size": 15}}),
    run("chardev-remove", id="n"),
    run("chardev-add", id="n", backend={"type": "null", "data": {}}),
    run("chardev-remove", id="n"),
    run("query-block"),
    run("query-blockstats"),
]

NODES = [
    null("a"),
    null("a"),
    null("1a"),
    null("a b"),
    null("x" * 31),
    null("x" * 32),
    add("null-co", "z", zz=1),
    run("blockdev-add", driver="null-co"),
    add("file", "f", filename="nope"),
    add("file", "f", filename="disk.raw"),
    add("raw", "r", file="f"),
    add("raw", "r2", file="nope"),
    add("qcow2", "q", file="f"),
    add("qcow2", "q", file=FILE),
    delete("f"),
    delete("nope"),
    delete("a"),
    run("query-blockstats", query__nodes=True),
    delete("r"),
    delete("f"),
    add("qcow2", "top", file=TOP),
    run("query-named-block-nodes", flat=True),
    run("query-blockstats", query__nodes=True),
    delete("x" * 31),
    run("query-named-block-nodes"),
    add("qcow2", "again", file=TOP),
    delete("top"),
    add("qcow2", "top", file={**TOP, "node-name": "top-f"}, backing=None),
    delete("top-f"),
    delete("top"),
    delete("top-f"),
    add("qcow2", "ro", file=TOP, read__only=True, cache={"direct": False, "no-flush": True}),
    run("query-named-block-nodes", flat=True),
    delete("ro"),
    add("raw", "w", file=FILE, offset=512, size=1024, detect__zeroes="on"),
    run("query-named-block-nodes"),
    delete("w"),
    add("raw", "w", file=FILE, offset=1 << 40),
    run("query-named-block-nodes"),
]

EXPORTS = [
    null("a", size=1 << 20),
    export("e", "a"),
    run("nbd-server-stop"),
    run("nbd-server-start", addr=UNIX),
    run("nbd-server-start", addr=UNIX),
    export("e", "nope"),
    export("", "a"),
    export("1e", "a"),
    export("e", "a", bitmaps=["b"]),
    export("e", "a", name="n" * 5000),
    export("e", "a", iothread="nope"),
    export("e", "a", writable=True),
    export("e", "a"),
    export("e2", "a"),
    export("e2", "a", name="other", description="text"),
    run("query-block-exports"),
    delete("a"),
    run("block-export-del", id="nope"),
    run("block-export-del", id="e"),
    run("block-export-del", id="e"),
    run("nbd-server-add", device="a"),
    run("nbd-server-add", device="nope"),
    run("query-block-exports"),
    run("nbd-server-remove", name="nope"),
    run("nbd-server-remove", name="a"),
    add("file", "f", filename="disk.raw", read__only=True),
    export("w", "f", writable=True),
    export("w", "f"),
    run("object-add", qom__type="iothread", id="io"),
    run("x-blockdev-set-iothread", node__name="nope", iothread="io"),
    run("x-blockdev-set-iothread", node__name="a", iothread="nope"),
    run("x-blockdev-set-iothread", node__name="a", iothread=5),
    run("x-blockdev-set-iothread", node__name="a", iothread=None),
    run("x-blockdev-set-iothread", node__name="f", iothread="io"),
    run("x-blockdev-set-iothread", node__name="f", iothread="io", force=True),
    run("nbd-server-stop"),
    run("query-block-exports"),
    delete("f"),
    delete("a"),
    run("nbd-server-start", addr=UNIX, tls__creds="nope"),
    run("nbd-server-start", addr={"type": "inet", "data": {"host": "127.0.0.1", "port": "0"}}),
    run("nbd-server-stop"),
]

# The same of jobs and changes of the graph.
MORE_FORMS = [
    run("block-commit"),
    run("block-commit", device="a", speed="x"),
    run("block-commit", device="a", on__error="zz"),
    run("block-stream"),
    run("block-stream", device="a", auto__finalize=1),
    run("block-stream", device="a", zz=1),
    run("blockdev-mirror"),
    run("blockdev-mirror", device="a", target="b"),
    run("blockdev-mirror", device="a", target="b", sync="zz"),
    run("blockdev-mirror", device="a", target="b", sync="full", copy__mode="zz"),
    run("blockdev-mirror", device="a", target="b", sync="full", granularity=-1),
    run("blockdev-backup"),
    run("blockdev-backup", device="a", target="b", sync="full", x__perf={"zz": 1}),
    run("blockdev-backup", device="a", target="b", sync="full", bitmap__mode="zz"),
    run("blockdev-create"),
    run("blockdev-create", job__id="j", options={}),
    run("blockdev-create", job__id="j", options={"driver": "qcow2"}),
    run("blockdev-create", job__id="j", options={"driver": "qcow2", "file": 5}),
    run("block-job-cancel"),
    run("block-job-cancel", device="a", force="x"),
    run("block-job-pause", device=1),
    run("block-job-set-speed", device="a"),
    run("block-job-set-speed", device="a", speed=1.5),
    run("block-job-dismiss"),
    run("job-pause"),
    run("job-cancel", id=1),
    run("job-dismiss", id="a", b=1),
    run("job-finalize"),
    run("job-complete"),
    run("job-resume"),
    run("query-jobs", x=1),
    run("query-block-jobs", x=1),
    run("blockdev-reopen"),
    run("blockdev-reopen", options={}),
    run("blockdev-reopen", options=[{"driver": "raw"}]),
    run("blockdev-snapshot"),
    run("blockdev-snapshot", node="a"),
    run("blockdev-snapshot-sync", node__name="a"),
    run("blockdev-snapshot-sync", node__name="a", snapshot__file="f", mode="zz"),
    run("change-backing-file", device="a"),
    run("block_resize"),
    run("block_resize", node__name="a", size="x"),
    run("block-set-write-threshold", node__name="a"),
    run("block-dirty-bitmap-add", node="a"),
    run("block-dirty-bitmap-add", node="a", name="b", granularity=-1),
    run("block-dirty-bitmap-add", node="a", name="b", persistent="x"),
    run("block-dirty-bitmap-clear", node="a"),
    run("block-dirty-bitmap-merge", node="a", target="b"),
    run("block-dirty-bitmap-merge", node="a", target="b", bitmaps=[{"node": "a"}]),
    run("transaction"),
    run("transaction", actions=[{"type": "zz", "data": {}}]),
    run("transaction", actions=[{"type": "abort"}]),
    run("transaction", actions=[], properties={"completion-mode": "zz"}),
    run("x-blockdev-change"),
]

# What is not there, and what is refused or does nothing.
JOBS = [
    null("a", size=65536),
    run("query-jobs"),
    run("query-block-jobs"),
    run("job-pause", id="nope"),
    run("job-resume", id="nope"),
    run("job-cancel", id="nope"),
    run("job-complete", id="nope"),
    run("job-finalize", id="nope"),
    run("job-dismiss", id="nope"),
    run("block-job-pause", device="nope"),
    run("block-job-resume", device="nope"),
    run("block-job-cancel", device="nope"),
    run("block-job-complete", device="nope"),
    run("block-job-set-speed", device="nope", speed=1),
    run("block-job-finalize", id="nope"),
    run("block-job-dismiss", id="nope"),
    run("block-stream", job__id="j", device="nope"),
    run("block-commit", job__id="j", device="nope"),
    run("blockdev-mirror", job__id="j", device="nope", target="a", sync="full"),
    run("blockdev-mirror", job__id="j", device="a", target="a", sync="full"),
    run("blockdev-mirror", job__id="j", device="a", target="nope", sync="full"),
    run("blockdev-mirror", job__id="1 j", device="nope", target="a", sync="full"),
    run("blockdev-backup", job__id="j", device="nope", target="a", sync="full"),
    run("blockdev-backup", job__id="j", device="a", target="nope", sync="full"),
    run("blockdev-create", job__id="j", options={"driver": "null-co"}),
    run("query-jobs"),
    delete("a"),
]

BITMAPS = [
    add("qcow2", "top", file=TOP),
    run("block-dirty-bitmap-add", node="top", name="b0", persistent=True),
    run("block-dirty-bitmap-add", node="top", name="b0"),
    run("block-dirty-bitmap-add", node="top", name=""),
    run("block-dirty-bitmap-add", node="top", name="x" * 1024),
    run("block-dirty-bitmap-add", node="nope", name="b1"),
    run("block-dirty-bitmap-add", node="top", name="b1", granularity=1000),
    run("block-dirty-bitmap-add", node="top", name="b1", granularity=4096, disabled=True),
    run("block-dirty-bitmap-enable", node="top", name="b1"),
    run("block-dirty-bitmap-enable", node="top", name="b1"),
    run("block-dirty-bitmap-disable", node="top", name="b1"),
    run("block-dirty-bitmap-disable", node="top", name="nope"),
    run("block-dirty-bitmap-clear", node="top", name="b1"),
    run("block-dirty-bitmap-merge", node="top", target="b1", bitmaps=["b0", "nope"]),
    run("block-dirty-bitmap-merge", node="top", target="b1", bitmaps=["b0"]),
    run("query-named-block-nodes", flat=True),
    run("x-debug-block-dirty-bitmap-sha256", node="top", name="b1"),
    run("transaction", actions=[]),
    run("transaction", actions=[{"type": "abort", "data": {}}]),
    run("block-dirty-bitmap-remove", node="top", name="nope"),
    run("block-dirty-bitmap-remove", node="top", name="b1"),
    run("block-dirty-bitmap-remove", node="top", name="b0"),
    run("block_resize", node__name="top", size=0),
    run("block_resize", node__name="top", size=1000),
    run("block_resize", node__name="nope", size=512),
    run("block_resize", node__name="top", size=8 << 20),
    run("blockdev-snapshot", node="top", overlay="nope"),
    run("blockdev-snapshot", node="nope", overlay="top"),
    run("change-backing-file", device="nope", image__node__name="top", backing__file="x"),
    run("block-set-write-threshold", node__name="nope", write__threshold=1),
    run("blockdev-reopen", options=[{"driver": "raw", "file": "top"}]),
    run("x-blockdev-change", parent="top"),
    delete("top"),
]

# An export holds the bitmaps that its clients see.
BITMAP_EXPORTS = [
    run("blockdev-add", driver="null-co", node__name="ro", size=1 << 20, read__only=True),
    null("a", size=1 << 20),
    run("block-dirty-bitmap-add", node="a", name="on"),
    run("block-dirty-bitmap-add", node="a", name="off", disabled=True),
    run("block-dirty-bitmap-add", node="ro", name="kept"),
    run("nbd-server-start", addr=UNIX),
    export("e", "a", bitmaps=["nope"]),
    export("e", "a", bitmaps=[{"node": "nope", "name": "on"}]),
    export("e", "a", bitmaps=[{"node": "ro", "name": "on"}]),
    export("e", "a", bitmaps=["off", "on"]),
    export("e", "a", bitmaps=["off", {"node": "a", "name": "on"}, "off"], writable=True),
    run("block-dirty-bitmap-remove", node="a", name="off"),
    run("block-dirty-bitmap-clear", node="a", name="on"),
    export("twice", "a", name="twice", bitmaps=["off"]),
    export("kept", "ro", bitmaps=["kept"]),
    export("again", "ro", name="again", bitmaps=["kept"]),
    run("block-export-del", id="e", mode="hard"),
    run("block-dirty-bitmap-clear", node="a", name="on"),
    export("later", "a", name="later", bitmaps=["off"]),
    run("block-dirty-bitmap-remove", node="a", name="on"),
]

TRANSCRIPTS = {
    "bitmap exports": BITMAP_EXPORTS,
    "more forms": MORE_FORMS,
    "jobs": JOBS,
    "bitmaps": BITMAPS,
    "forms": FORMS,
    "objects": OBJECTS,
    "chardevs": CHARDEVS,
    "nodes": NODES,
    "exports": EXPORTS,
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for words in ("-f raw disk.raw 1M", "-f qcow2 base.qcow2 4M"):
        subprocess.run(["qemu-img", "create", "-q", *words.split()], check=True, cwd=folder)
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2"],
        check=True,
        cwd=folder,
    )
    return folder


def held(program, requests, folder):
    """All that is said to REQUESTS, with the events between; what the reply to one was, by its number."""
    with Daemon(program, directory=folder) as running:
        client = running.client()
        said = []
        for request in requests:
            before = len(client.events)
            reply = client.exchange(request)
            said.append([comparable(one) for one in [*client.events[before:], reply]])
        client.close()
        assert running.stop() == (0, "")
    return said


# What may differ, and is not looked at.
def shown(answers):
    text = json.dumps(answers)
    return json.loads(text, object_pairs_hook=without_measures)


def without_measures(pairs):
    return {key: value for key, value in pairs if key not in ("actual-size",)}


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_a_transcript_is_that_of_the_reference(name, images, tmp_path):
    said = []
    for number, program in enumerate((OURS, "qemu-storage-daemon")):
        folder = tmp_path / str(number)
        shutil.copytree(images, folder)
        said.append(held(program, TRANSCRIPTS[name], folder))
    wrong = [
        (request, ours, theirs)
        for request, ours, theirs in zip(TRANSCRIPTS[name], *said)
        if shown(ours) != shown(theirs)
    ]
    assert wrong == []


def test_there_are_enough_exchanges():
    assert sum(map(len, TRANSCRIPTS.values())) >= 300

"""Commands with several mistakes, and commands at odd nodes: replies next to qemu-storage-daemon's."""
import json
import subprocess

import pytest
from conftest import CAIRN
from qmp import Daemon, comparable

pytestmark = [pytest.mark.any_engine, pytest.mark.words]

OURS = CAIRN.parent / "compat" / "qemu-storage-daemon"
IMAGES = ("base", "mid", "top", "small", "other")


def run(command, /, **arguments):
    """A request; __ in names of arguments stands for -."""
    request = {"execute": command}
    if arguments:
        request["arguments"] = {key.replace("__", "-"): value for key, value in arguments.items()}
    return request


def file(name):
    return {"driver": "file", "filename": f"{name}.img"}


def image(name, driver="qcow2", **more):
    return run("blockdev-add", driver=driver, node__name=name, file=file(name), **more)


def backup(**more):
    return run("blockdev-backup", **{"job__id": "1", "device": "mid", "sync": "full", **more})


def mirror(**more):
    return run("blockdev-mirror", **{"job__id": "1", "device": "mid", "sync": "full", **more})


CHAIN = [image("base"), image("mid", backing="base"), image("small"), image("other", "raw")]
BAD_X_PERF = {"max-workers": 0}

COPY_JOBS = [
    *CHAIN,
    backup(target="mid", sync="bitmap"),
    backup(target="base", bitmap="x"),
    backup(target="base", sync="incremental", bitmap="x", bitmap__mode="always"),
    backup(target="base", sync="none", bitmap="x", bitmap__mode="always"),
    backup(target="base", sync="none", bitmap__mode="always"),
    backup(target="mid", x__perf=BAD_X_PERF),
    backup(target="mid", filter__node__name="1"),
    backup(target="small", compress=True, filter__node__name="1"),
    backup(target="other", compress=True, speed=-1),
    backup(target="other", x__perf={"min-cluster-size": 1000}),
    backup(target="other", x__perf={"max-chunk": 1000}),
    backup(target="other", filter__node__name="1"),
    backup(target="other", speed=-1),
    mirror(target="mid", sync="incremental", granularity=1000),
    mirror(device="base", target="base", sync="incremental"),
    mirror(device="other", target="base", sync="incremental"),
    mirror(device="other", target="mid", sync="incremental", replaces="x"),
    mirror(target="mid", sync="incremental", buf__size=-1),
    mirror(target="mid", buf__size=-1),
    mirror(target="mid", filter__node__name="1"),
    mirror(target="other", filter__node__name="mid"),
    mirror(target="other", speed=-1),
    run("drive-mirror", job__id="1", device="base", target="no/x", sync="full"),
    run("block-stream", job__id="1", device="mid", filter__node__name="1"),
    run("block-stream", job__id="1", device="mid", backing__file="x", filter__node__name="1"),
    run("block-commit", job__id="1", device="mid", filter__node__name="mid"),
    run("block-commit", job__id="1", device="mid", backing__file="x"),
    run("block-commit", job__id="1", device="mid"),
    run("query-jobs"),
]

NAMES = [
    *CHAIN,
    *(
        run(f"block-dirty-bitmap-{verb}", node="x", name="b")
        for verb in ("remove", "clear", "enable", "disable", "add")
    ),
    run("block-dirty-bitmap-add", node="x", name=""),
    run("block-dirty-bitmap-merge", node="x", target="b", bitmaps=["c"]),
    run("x-debug-block-dirty-bitmap-sha256", node="x", name="b"),
    run("block-dirty-bitmap-add", node="mid", name="b"),
    run("block-dirty-bitmap-add", node="mid", name="b", granularity=1),
    run("block-dirty-bitmap-add", node="other", name="b"),
    run("block-dirty-bitmap-add", node="other", name="b", persistent=True),
    run("blockdev-snapshot-sync", node__name="base", snapshot__file="no/x"),
    run("change-backing-file", device="mid", image__node__name="mid", backing__file="x" * 1100),
    run("qom-set", path="/", property="type", value="x"),
    run("qom-set", path="/objects", property="limits", value="x"),
    run("nbd-server-start", addr={"type": "unix", "data": {"path": "nbd.sock"}}),
    run("block-export-add", type="nbd", id="e", node__name="mid"),
    run("block-export-add", type="nbd", id="w", node__name="small", writable=True),
    run("blockdev-set-active", active=False),
    run("blockdev-set-active", active=False, node__name="small"),
    run("blockdev-set-active", active=False, node__name="mid"),
]

# A raw node is a layer of its own; what is below it is not in its chain.
RAW = [
    *CHAIN,
    run("blockdev-add", driver="raw", node__name="raw", file="mid"),
    run("block-stream", job__id="j", device="raw", base__node="base"),
    run("block-stream", job__id="j", device="raw", bottom="mid"),
    run("block-commit", job__id="j", device="raw", base__node="base"),
    run("block-commit", job__id="j", device="raw", top__node="mid"),
    run("block-commit", job__id="j", device="raw"),
]


def option_sets(node, **more):
    return run("blockdev-reopen", options=[{"driver": "qcow2", "node-name": node, **more}])


# A child that was opened by options is opened anew by options.
INLINE = [
    *CHAIN,
    option_sets("base", file=file("base")),
    option_sets("base", file={**file("base"), "discard": "unmap"}),
    option_sets("base", file=file("other")),
    option_sets("base", file={**file("base"), "aio": "native"}),
    option_sets("base", file={**file("base"), "node-name": "f"}),
    option_sets("mid", file=file("mid")),
    option_sets("mid", file=file("mid"), backing="base"),
    option_sets("mid", file=file("mid"), backing={"driver": "qcow2", "file": file("base")}),
    run("blockdev-add", node__name="f", **file("top")),
    run("blockdev-add", driver="qcow2", node__name="top", file="f", backing="mid"),
    option_sets("top", file=file("top"), backing="mid"),
    run("blockdev-reopen", options=[{"driver": "raw", "node-name": "other", "file": "small"}]),
    image("again", "raw") | {"arguments": {**file("other"), "node-name": "again"}},
    run("block-set-write-threshold", node__name="mid", write__threshold=65536),
    run("query-named-block-nodes", flat=True),
]

TRANSCRIPTS = {"copy jobs": COPY_JOBS, "names": NAMES, "raw": RAW, "inline children": INLINE}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    sizes = {"small": "1M"}
    for name in IMAGES:
        form = "raw" if name == "other" else "qcow2"
        words = ["create", "-q", "-f", form, f"{name}.img", sizes.get(name, "2M")]
        subprocess.run(["qemu-img", *words], check=True, cwd=folder)
    return folder


@pytest.fixture
def pair(images, tmp_path):
    daemons = []
    for number, program in enumerate((OURS, "qemu-storage-daemon")):
        folder = tmp_path / str(number)
        subprocess.run(["cp", "-r", images, folder], check=True)
        daemons.append(Daemon(program, directory=folder))
    yield [(one, one.client()) for one in daemons]
    for one in daemons:
        assert one.stop()[0] == 0


def shown(reply):
    text = json.dumps(comparable(reply))
    return json.loads(text, object_pairs_hook=without_measures)


# A node that was given other children is named by its options there, by the file here.
MEASURES = ("actual-size", "file", "filename", "backing_file")


def without_measures(pairs):
    return {key: value for key, value in pairs if key not in MEASURES}


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_every_reply_is_that_of_the_reference(name, pair):
    said = [[shown(client.exchange(one)) for one in TRANSCRIPTS[name]] for _, client in pair]
    assert [each for each in zip(TRANSCRIPTS[name], *said) if each[1] != each[2]] == []


def concluded(client, request):
    """The end of a job that needs no help, and how it says so."""
    assert "return" in client.exchange(request)
    while client.event("JOB_STATUS_CHANGE")["status"] not in ("concluded", "null"):
        pass
    return [one.get("error") for one in client.command("query-jobs")]


def test_a_stream_through_a_filter_cuts_the_chain_below_it(pair):
    for _, client in pair:
        client.command("object-add", qom__type="throttle-group", id="g")
        for request in CHAIN[:2]:
            assert "return" in client.exchange(request)
        client.command(
            "blockdev-add", driver="throttle", throttle__group="g", node__name="t", file="mid"
        )
        concluded(client, run("block-stream", job__id="j", device="t"))
        client.command("blockdev-del", node__name="base")


def test_a_writer_above_a_raw_node_does_not_mind_a_stream(pair):
    for _, client in pair:
        assert "return" in client.exchange(image("other", "raw"))
        address = {"type": "unix", "data": {"path": "nbd.sock"}}
        client.command("nbd-server-start", addr=address)
        client.command("block-export-add", type="nbd", id="e", node__name="other", writable=True)
        client.events.clear()
        assert "return" in client.exchange(run("block-stream", job__id="j", device="other"))
        assert client.event("BLOCK_JOB_COMPLETED")["len"] == 0


WRONG_SIZES = [
    {"driver": "qcow2", "size": 1000},
    {"driver": "qed", "size": 1000},
    {"driver": "parallels", "size": 1000},
    {"driver": "vmdk", "size": 1000},
    {"driver": "parallels", "size": 1 << 20, "cluster-size": 1000},
    {"driver": "vhdx", "size": 1 << 20, "block-size": 1000},
    {"driver": "vhdx", "size": 1 << 20, "block-size": 512 << 20},
    {"driver": "vhdx", "size": 1 << 20, "log-size": 1000},
]


def test_sizes_that_no_image_has_are_refused_and_not_rounded(pair):
    said = []
    for _, client in pair:
        assert "return" in client.exchange(image("other", "raw"))
        mine = []
        for what in WRONG_SIZES:
            options = {**what, "file": "other"}
            mine += concluded(client, run("blockdev-create", job__id="j", options=options))
            client.command("job-dismiss", id="j")
            client.events.clear()
        said.append(mine)
    assert said[0] == said[1]
    assert None not in said[0]


def test_the_digest_of_a_bitmap_is_that_of_whole_words(pair):
    digests = []
    for daemon, client in pair:
        assert "return" in client.exchange(image("other", "raw"))
        client.command("block-dirty-bitmap-add", node="other", name="b")
        address = {"type": "unix", "data": {"path": "nbd.sock"}}
        client.command("nbd-server-start", addr=address)
        client.command("block-export-add", type="nbd", id="e", node__name="other", writable=True)
        words = [
            "qemu-io",
            "-f",
            "raw",
            "-c",
            "write 64k 100k",
            "nbd+unix:///other?socket=nbd.sock",
        ]
        subprocess.run(words, check=True, cwd=daemon.directory, stdout=subprocess.DEVNULL)
        answer = client.command("x-debug-block-dirty-bitmap-sha256", node="other", name="b")
        digests.append(answer["sha256"])
    assert digests[0] == digests[1]

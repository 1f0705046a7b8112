"""Options of jobs that say how, and not what: events, replies and results next to qemu-storage-daemon."""
import json

import pytest
from job_disks import MIB, both, info, pair, run, same

pytestmark = [pytest.mark.any_engine, pytest.mark.words]

MIRROR = {"device": "top", "target": "target", "sync": "full"}
BACKUP = {"device": "top", "target": "target", "sync": "full"}
JOBS = {
    "blockdev-mirror": MIRROR,
    "blockdev-backup": BACKUP,
    "block-stream": {"device": "top"},
    "block-commit": {"device": "top"},
    "block-commit of a middle layer": {"device": "top", "top_node": "mid"},
}
# Those that get ready, and end when they are asked to.
READY = {"blockdev-mirror": "mirror", "block-commit": "commit"}


def start(one, name, **options):
    command = name.split()[0]
    return one.ask(command, job_id="j", **{**JOBS[name], **options})


def end(one, name):
    """Lets a job that was begun do its work; what is said on the way is kept."""
    if name in READY:
        one.until_after(f'BLOCK_JOB_READY j {{"type": "{READY[name]}"}}')
        return one.ask("job-complete", id="j")
    return None


def names(one):
    listed = one.ask("query-named-block-nodes", flat=True)["return"]
    return sorted(n["node-name"] for n in listed if not n["node-name"].startswith("#"))


def compare(both, name):
    run("qemu-img", "compare", "-q", "-U", both[0].path(name), both[1].path(name))


@pytest.mark.parametrize("name", JOBS)
def test_the_name_of_the_filter(both, name):
    def steps(one):
        # So that it is there when it is looked for.
        said = [start(one, name, filter_node_name="filter", speed=1), names(one)]
        said.append(one.ask("job-cancel", id="j"))
        one.until_after("null j")
        said.append(names(one))
        for wrong in ("1f", "top", "x" * 32):
            reply = start(one, name, filter_node_name=wrong)
            said.append(reply)
        return said

    ours, theirs = (steps(one) for one in both)
    assert ours == theirs


@pytest.mark.parametrize("name", JOBS)
def test_the_end_is_permitted_and_dismissed(both, name):
    """auto-finalize and auto-dismiss, each alone and both."""

    def steps(one):
        said = [start(one, name, auto_finalize=False, auto_dismiss=False), end(one, name)]
        kind = name.split()[0].rpartition("-")[2]
        place = one.until_after(f'BLOCK_JOB_PENDING j {{"type": "{kind}"}}')
        (job,) = one.ask("query-jobs")["return"]
        said.append((job["status"], job["type"]))
        said.append(one.ask("job-dismiss", id="j"))
        said.append(one.ask("job-finalize", id="j"))
        one.until_after("concluded j", place)
        (job,) = one.ask("query-jobs")["return"]
        said += [(job["status"], job["type"]), one.ask("job-dismiss", id="j")]
        return said

    same(both, steps)


@pytest.mark.parametrize("name", JOBS)
def test_dismissed_by_hand(both, name):
    def steps(one):
        said = [start(one, name, auto_dismiss=False), end(one, name)]
        one.until_after("concluded j")
        said += [one.ask("job-finalize", id="j"), one.ask("job-dismiss", id="j")]
        return [*said, one.ask("query-jobs")]

    same(both, steps)


@pytest.mark.parametrize(
    "options",
    [
        {"granularity": 512},
        {"granularity": 64 * MIB},
        {"granularity": 0},
        {"buf_size": 1},
        {"buf_size": 65536},
        {"buf_size": 64 * MIB},
        {"granularity": 4096, "buf_size": 4096},
        {"copy_mode": "write-blocking"},
        {"speed": 1 << 40},
    ],
    ids=str,
)
def test_how_a_mirror_copies(both, options):
    def steps(one):
        said = [one.ask("blockdev-mirror", job_id="j", **MIRROR, **options)]
        if "error" in said[0]:
            return said
        one.until_after('BLOCK_JOB_READY j {"type": "mirror"}')
        (job,) = one.ask("query-block-jobs")["return"]
        keys = ("ready", "status", "speed", "io-status", "auto-finalize")
        said += [[job[key] for key in keys], one.ask("block-job-cancel", device="j")]
        one.until_after("null j")
        return said

    same(both, steps)
    compare(both, "target")


def test_a_mirror_begins_to_block(both):
    """The one change that a job takes while it works."""

    def steps(one):
        said = [one.ask("blockdev-mirror", job_id="j", **MIRROR)]
        one.until_after('BLOCK_JOB_READY j {"type": "mirror"}')
        for mode in ("background", "write-blocking", "write-blocking", "background"):
            change = {"id": "j", "type": "mirror", "copy_mode": mode}
            said.append(one.ask("block-job-change", **change))
        said.append(one.ask("block-job-change", id="k", type="mirror", copy_mode="write-blocking"))
        said.append(one.ask("job-cancel", id="j"))
        one.until_after("null j")
        return said

    same(both, steps)


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"max-workers": 1},
        {"max-workers": 0},
        {"max-workers": 1 << 31},
        {"max-chunk": 65536},
        {"max-chunk": 100000},
        {"max-chunk": -1},
        {"max-chunk": 512},
        {"use-copy-range": True},
        {"min-cluster-size": 1 << 20},
        {"min-cluster-size": 3 << 20},
        {"min-cluster-size": 1 << 20, "max-chunk": 65536},
        {"max-workers": 2, "max-chunk": 131072, "use-copy-range": True},
    ],
    ids=str,
)
def test_how_a_backup_copies(both, limits):
    def steps(one):
        reply = one.ask("blockdev-backup", job_id="j", x_perf=limits, **BACKUP)
        if "error" not in reply:
            one.until_after("null j")
        return reply

    same(both, steps)
    compare(both, "target")


@pytest.mark.parametrize(
    "arguments",
    [
        {"base_node": "base"},
        {"bottom": "mid"},
        {"bottom": "base"},
        {"base_node": "mid"},
        {"base_node": "base", "backing_file": "other.img"},
        {"base_node": "base", "backing_mask_protocol": True},
        {"bottom": "mid", "backing_file": "other.img", "backing_mask_protocol": True},
    ],
    ids=str,
)
def test_what_a_stream_leaves_below(both, arguments):
    def steps(one):
        reply = one.ask("block-stream", device="top", job_id="j", **arguments)
        if "error" in reply:
            return reply
        one.until_after("null j")
        return reply, header(one, "top")

    same(both, steps)


@pytest.mark.parametrize(
    "arguments",
    [
        {"top_node": "mid", "base_node": "base"},
        {"top_node": "mid", "backing_file": "other.img"},
        {"top_node": "mid", "backing_mask_protocol": True},
        {"top_node": "mid", "backing_file": "other.img", "backing_mask_protocol": True},
    ],
    ids=str,
)
def test_what_a_commit_leaves_below(both, arguments):
    def steps(one):
        reply = one.ask("block-commit", device="top", job_id="j", **arguments)
        if "error" in reply:
            return reply
        one.until_after("null j")
        return reply, header(one, "top")

    same(both, steps)
    compare(both, "base")


def header(one, name):
    facts = info(one.path(name))
    below = facts.get("backing-filename")
    # What was opened with options beyond its name is named by all of them there.
    if below and below.startswith("json:"):
        below = json.loads(below[5:])["file"]["filename"]
    return below and below.replace(str(one.directory), ""), facts.get("backing-filename-format")

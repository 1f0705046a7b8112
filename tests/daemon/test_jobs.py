"""Jobs of the daemon: events, replies and results compared with qemu-storage-daemon's own."""
import json
import subprocess

import pytest
from job_disks import MIB, both, info, pair, run, same


ERRORS = [
    ("block-stream", {"device": "nope", "job_id": "j"}),
    ("block-stream", {"device": "top", "job_id": "j", "base": "a", "base_node": "b"}),
    ("block-stream", {"device": "top", "job_id": "j", "bottom": "mid", "base_node": "base"}),
    ("block-stream", {"device": "top", "job_id": "j", "base_node": "top"}),
    ("block-stream", {"device": "top", "job_id": "j", "base_node": "target"}),
    ("block-stream", {"device": "top", "job_id": "j", "bottom": "target"}),
    ("block-stream", {"device": "top", "job_id": "j", "base": "nope.q"}),
    ("block-stream", {"device": "top", "job_id": "j", "backing_file": "x"}),
    ("block-stream", {"device": "top", "job_id": "1j"}),
    ("block-stream", {"device": "top"}),
    ("block-stream", {"device": "top", "job_id": "j", "speed": -1}),
    ("block-commit", {"device": "nope", "job_id": "j"}),
    ("block-commit", {"device": "mid", "job_id": "j"}),
    ("block-commit", {"device": "top", "job_id": "j", "base": "a", "base_node": "b"}),
    ("block-commit", {"device": "top", "job_id": "j", "top": "a", "top_node": "b"}),
    ("block-commit", {"device": "top", "job_id": "j", "base_node": "top"}),
    ("block-commit", {"device": "top", "job_id": "j", "top_node": "base"}),
    ("block-commit", {"device": "top", "job_id": "j", "top_node": "target"}),
    ("block-commit", {"device": "top", "job_id": "j", "base_node": "target"}),
    ("block-commit", {"device": "top", "job_id": "j", "base": "nope.q"}),
    ("block-commit", {"device": "top", "job_id": "j", "top": "nope.q"}),
    ("block-commit", {"device": "top", "job_id": "j", "backing_file": "x"}),
    ("blockdev-mirror", {"device": "top", "target": "target", "job_id": "j", "sync": "bitmap"}),
    ("blockdev-mirror", {"device": "nope", "target": "target", "job_id": "j", "sync": "full"}),
    ("blockdev-mirror", {"device": "top", "target": "top", "job_id": "j", "sync": "full"}),
    ("blockdev-mirror", {"device": "mid", "target": "target", "job_id": "j", "sync": "full"}),
    (
        "blockdev-mirror",
        {"device": "top", "target": "target", "job_id": "j", "sync": "full", "granularity": 100},
    ),
    (
        "blockdev-mirror",
        {"device": "top", "target": "target", "job_id": "j", "sync": "full", "granularity": 1000},
    ),
    (
        "blockdev-mirror",
        {"device": "top", "target": "target", "job_id": "j", "sync": "full", "replaces": "nope"},
    ),
    ("blockdev-backup", {"device": "top", "target": "top", "job_id": "j", "sync": "full"}),
    ("blockdev-backup", {"device": "top", "target": "target", "job_id": "j", "sync": "bitmap"}),
    (
        "blockdev-backup",
        {
            "device": "top",
            "target": "target",
            "job_id": "j",
            "sync": "full",
            "bitmap_mode": "always",
        },
    ),
    (
        "blockdev-backup",
        {"device": "top", "target": "target", "job_id": "j", "sync": "full", "compress": True},
    ),
    ("job-pause", {"id": "nope"}),
    ("job-finalize", {"id": "nope"}),
    ("block-job-cancel", {"device": "nope"}),
    ("block-job-dismiss", {"id": "nope"}),
]


def test_errors(both):
    for name, arguments in ERRORS:
        answers = [one.error(name, **arguments) for one in both]
        assert answers[0] == answers[1], (name, arguments)
    assert both[0].transcript() == both[1].transcript()


@pytest.mark.parametrize("base", [None, "base"])
def test_stream(both, base):
    def steps(one):
        more = {"base_node": base} if base else {}
        reply = one.ask("block-stream", device="top", job_id="s", **more)
        one.until("null s")
        facts = info(one.path("top"))
        name = facts.get("backing-filename")
        return (
            reply,
            name and name.replace(str(one.directory), ""),
            facts.get("backing-filename-format"),
        )

    same(both, steps)
    for one in both:
        one.drop_nodes()
    run("qemu-img", "compare", "-q", both[0].path("top"), both[1].path("top"))


@pytest.mark.parametrize("verb", ["cancel", "finalize"])
def test_controls(both, verb):
    """Pause, speed and the end that has to be permitted."""

    def steps(one):
        replies = [
            one.ask(
                "block-stream",
                device="top",
                job_id="s",
                speed=65536,
                auto_finalize=False,
                auto_dismiss=False,
            ),
            one.ask("job-pause", id="s"),
        ]
        one.until("paused s")
        replies.append(one.ask("job-pause", id="s"))
        replies.append(one.ask("job-complete", id="s"))
        replies.append(one.ask("block-job-cancel", device="s"))
        replies.append(one.ask("block-job-set-speed", device="s", speed=-1))
        replies.append(one.ask("block-job-set-speed", device="s", speed=0))
        jobs = one.ask("query-block-jobs")["return"]
        replies.append([{key: job[key] for key in ("paused", "ready", "status")} for job in jobs])
        replies.append(one.ask("job-resume", id="s"))
        one.until('BLOCK_JOB_PENDING s {"type": "stream"}')
        one.said.clear()
        replies.append(one.ask("job-resume", id="s"))
        replies.append(one.ask("job-dismiss", id="s"))
        replies.append(one.ask(f"job-{verb}", id="s"))
        jobs = one.ask("query-jobs")["return"]
        replies.append([{key: job.get(key) for key in ("error", "status")} for job in jobs])
        replies.append(one.ask("job-dismiss", id="s"))
        return replies

    same(both, steps)


def test_commit_of_a_middle_layer(both):
    def steps(one):
        reply = one.ask("block-commit", **{"device": "top", "top-node": "mid", "job-id": "c"})
        one.until("null c")
        facts = info(one.path("top"))
        return reply, facts["backing-filename"].replace(str(one.directory), "")

    same(both, steps)
    run("qemu-img", "compare", "-q", "-U", both[0].path("top"), both[1].path("top"))
    run("qemu-img", "compare", "-q", "-U", both[0].path("base"), both[1].path("base"))


@pytest.mark.parametrize("end", ["job-complete", "block-job-cancel", "job-cancel"])
def test_commit_of_the_active_layer(both, end):
    def steps(one):
        reply = one.ask("block-commit", device="top", job_id="c")
        one.until('BLOCK_JOB_READY c {"type": "commit"}')
        key = "device" if end.startswith("block-") else "id"
        answer = one.ask(end, **{key: "c"})
        one.until("null c")
        return reply, answer

    same(both, steps)
    if end != "job-cancel":
        run("qemu-img", "compare", "-q", "-U", both[0].path("base"), both[1].path("top"))


@pytest.mark.parametrize("sync", ["full", "top", "none"])
@pytest.mark.parametrize("end", ["job-complete", "block-job-cancel", "job-cancel"])
def test_mirror(both, sync, end):
    def steps(one):
        reply = one.ask("blockdev-mirror", device="top", target="target", sync=sync, job_id="m")
        one.until('BLOCK_JOB_READY m {"type": "mirror"}')
        key = "device" if end.startswith("block-") else "id"
        answer = one.ask(end, **{key: "m"})
        one.until("null m")
        return reply, answer

    same(both, steps)
    run("qemu-img", "compare", "-q", "-U", both[0].path("target"), both[1].path("target"))


@pytest.mark.parametrize("sync", ["full", "top"])
def test_backup(both, sync):
    def steps(one):
        reply = one.ask("blockdev-backup", device="top", target="target", sync=sync, job_id="b")
        one.until("null b")
        return reply

    same(both, steps)
    run("qemu-img", "compare", "-q", "-U", both[0].path("target"), both[1].path("target"))


def test_backup_of_nothing_ends_by_cancel(both):
    def steps(one):
        reply = one.ask("blockdev-backup", device="top", target="target", sync="none", job_id="b")
        answer = one.ask("job-complete", id="b")
        one.ask("job-cancel", id="b")
        one.until("null b")
        return reply, answer

    same(both, steps)


POLICIES = {
    "report": ("report", 5),
    "stop": ("stop", 5),
    "enospc": ("enospc", 28),
    "enospc of another error": ("enospc", 5),
    "ignore": ("ignore", 5),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("side", ["read", "write"])
@pytest.mark.parametrize("job", ["blockdev-mirror", "blockdev-backup", "block-stream"])
def test_errors_of_requests(both, job, side, policy):
    """One request fails: what the job says, what it does, and how it continues."""
    word, number = POLICIES[policy]
    if job == "block-stream" and side == "write":
        side = "read of the middle layer"
    action = {"enospc": "stop" if number == 28 else "report"}.get(word, word)

    def steps(one):
        written = side == "write"
        victim = "target" if written else "mid"
        inject = {"event": "none", "errno": number, "once": True}
        inject["iotype"] = "write" if written else "read"
        options = {"driver": "blkdebug", "node-name": "faulty", "inject-error": [inject]}
        replies = [one.ask("blockdev-add", **options, image=victim)]
        one.names.append("faulty")
        arguments = {"device": "faulty", "job_id": "j"}
        if job == "block-stream":
            one.image("over", "qcow2", "top")
            overlay = {"driver": "file", "filename": one.path("over")}
            replies.append(
                one.ask(
                    "blockdev-add",
                    **{"driver": "qcow2", "node-name": "over", "file": overlay},
                    backing="faulty",
                )
            )
            one.names.append("over")
            arguments = {"device": "over", "job_id": "j", "on_error": word}
        else:
            arguments["target"] = "target2"
            if written:
                arguments = {"device": "top", "job_id": "j", "target": "faulty"}
            arguments.update(sync="full", on_source_error=word, on_target_error=word)
        replies.append(one.ask(job, **arguments))
        operation = "write" if written else "read"
        said = {"action": action, "operation": operation}
        place = one.until_after(f"BLOCK_JOB_ERROR j {json.dumps(said, sort_keys=True)}")
        if action == "stop":
            one.until_after("paused j", place)
            jobs = one.ask("query-block-jobs")["return"]
            replies.append([(info["io-status"], info["paused"]) for info in jobs])
            replies.append(one.ask("block-job-resume", device="j"))
        if job == "blockdev-mirror" and action != "report":
            one.until_after('BLOCK_JOB_READY j {"type": "mirror"}')
            replies.append(one.ask("query-block-jobs")["return"][0]["io-status"])
            one.ask("job-cancel", id="j")
        one.until_after("null j")
        return replies

    same(both, steps)


@pytest.mark.parametrize("end", ["finalize", "cancel", "failure"])
def test_backups_of_one_transaction(both, end):
    def steps(one):
        actions = [
            {
                "type": "blockdev-backup",
                "data": {
                    "job-id": f"t{number}",
                    "device": "top",
                    "target": target,
                    "sync": "full",
                    "auto-finalize": False,
                },
            }
            for number, target in ((1, "target"), (2, "target2"))
        ]
        if end == "failure":
            actions.append({"type": "abort", "data": {}})
        reply = one.ask("transaction", actions=actions, properties={"completion-mode": "grouped"})
        if end == "failure":
            # The words for an action that cannot be grouped come first.
            return reply, one.ask("transaction", actions=actions)
        one.until('BLOCK_JOB_PENDING t1 {"type": "backup"}')
        # Which of the two has work left for longer is chance.
        one.said.clear()
        answer = one.ask(f"job-{end}", id="t1")
        if end == "cancel":
            # Which job aborts first differs; each says the same for itself.
            one.said.sort()
        return reply, answer, one.ask("query-jobs")

    same(both, steps)
    if end == "finalize":
        run("qemu-img", "compare", "-q", "-U", both[0].path("target"), both[1].path("target2"))


def test_create(both, tmp_path):
    """A file and an image in it, as libvirt makes them."""

    def steps(one):
        path = str(one.directory / "new.img")
        replies = [
            one.ask(
                "blockdev-create",
                job_id="c",
                options={"driver": "file", "filename": path, "size": 0},
            )
        ]
        one.until("concluded c")
        replies.append(one.ask("query-jobs"))
        replies.append(one.ask("job-dismiss", id="c"))
        one.ask("blockdev-add", **{"driver": "file", "filename": path, "node-name": "new-f"})
        one.names.append("new-f")
        for options in (
            {"driver": "qcow2", "file": "new-f", "size": MIB, "version": "v2"},
            {"driver": "qcow2", "file": "nope", "size": MIB},
            {"driver": "vdi", "file": "new-f", "size": MIB},
        ):
            one.said.append(json.dumps(options))
            replies.append(one.ask("blockdev-create", job_id="c", options=options))
            one.until("concluded c")
            replies.append(one.ask("query-jobs"))
            replies.append(one.ask("job-dismiss", id="c"))
        replies.append(one.ask("blockdev-create", job_id="c", options={"driver": "null-co"}))
        return replies

    same(both, steps)
    for one in both:
        assert info(one.directory / "new.img")["format"] == "vdi"

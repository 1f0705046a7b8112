"""drive-mirror and drive-backup, which make their target themselves, next to qemu-storage-daemon."""
import json
import re

import pytest
from job_disks import both, info, pair, run, same


def facts(one, name):
    """What the image NAME is, in words that both daemons share."""
    shown = info(one.path(name))
    # What was opened with options beyond its name is named by all of them there.
    below = shown.get("backing-filename", "")
    if below.startswith("json:"):
        shown["backing-filename"] = json.loads(below[5:])["file"]["filename"]
    keys = ("format", "virtual-size", "backing-filename", "backing-filename-format")
    return [str(shown.get(key)).replace(str(one.directory), "") for key in keys]


def nodes(one):
    """Drivers of all nodes but the filter of a job, with names where they are not made up."""
    listed = one.ask("query-named-block-nodes", flat=True)["return"]
    return sorted(
        (node["drv"], re.sub(r"#block\d+", "#block", node["node-name"]))
        for node in listed
        if node["drv"] not in ("mirror_top", "copy-before-write")
    )


@pytest.mark.parametrize("sync", ["full", "top", "none"])
@pytest.mark.parametrize("end", ["job-complete", "job-cancel"])
def test_mirror_to_a_file(both, sync, end):
    def steps(one):
        arguments = {"device": "top", "target": one.path("new"), "sync": sync, "job_id": "m"}
        said = [one.ask("drive-mirror", node_name="copy", **arguments)]
        one.until('BLOCK_JOB_READY m {"type": "mirror"}')
        said += [facts(one, "new"), nodes(one)]
        said.append(one.ask(end, id="m"))
        one.until("null m")
        return [*said, nodes(one)]

    same(both, steps)
    for one in both:
        one.drop_nodes()
    if end == "job-complete":
        run("qemu-img", "compare", "-q", both[0].path("top"), both[0].path("new"))
        run("qemu-img", "compare", "-q", both[0].path("new"), both[1].path("new"))


def test_the_target_of_a_mirror_takes_over(both):
    """Who uses the source uses the file that was made, which goes with its last user."""

    def steps(one):
        said = [one.ask("nbd-server-start", addr=socket_of(one))]
        export = {"type": "nbd", "id": "e", "node_name": "top", "writable": True}
        said.append(one.ask("block-export-add", **export))
        arguments = {"device": "top", "target": one.path("new"), "sync": "top", "job_id": "m"}
        said.append(one.ask("drive-mirror", node_name="copy", **arguments))
        one.until('BLOCK_JOB_READY m {"type": "mirror"}')
        said.append(one.ask("job-complete", id="m"))
        one.until("null m")
        said.append(one.ask("query-block-exports"))
        run("qemu-io", "-f", "raw", "-c", "read -P 1 300k 4k", "-c", "write 1M 64k", uri_of(one))
        said += [one.ask("nbd-server-stop"), nodes(one)]
        return said

    same(both, steps)


def socket_of(one):
    return {"type": "unix", "data": {"path": str(one.directory / "nbd.sock")}}


def uri_of(one):
    return f"nbd+unix:///top?socket={one.directory}/nbd.sock"


@pytest.mark.parametrize("sync", ["full", "top", "none"])
def test_backup_to_a_file(both, sync):
    if sync == "top":
        # A backing file that the daemon holds writable could not be opened once more.
        for one in both:
            one.ask("blockdev-reopen", options=[reopened(one)])

    def steps(one):
        arguments = {"device": "top", "target": one.path("new"), "sync": sync, "job_id": "b"}
        said = [one.ask("drive-backup", **arguments)]
        if sync == "none":
            said += [nodes(one), one.ask("job-cancel", id="b")]
        one.until("null b")
        return [*said, facts(one, "new"), nodes(one)]

    same(both, steps)
    if sync != "none":
        run("qemu-img", "compare", "-q", "-U", both[0].path("top"), both[0].path("new"))


def reopened(one):
    return {"driver": "qcow2", "node-name": "mid", "file": "mid-f", "backing": "base"} | {
        "read-only": True
    }


def test_a_moment_of_a_disk_is_kept_in_a_file(both):
    """What the guest overwrites goes to the file, which has the disk itself below."""

    def steps(one):
        said = [one.ask("nbd-server-start", addr=socket_of(one))]
        export = {"type": "nbd", "id": "e", "node_name": "top", "writable": True}
        said.append(one.ask("block-export-add", **export))
        arguments = {"device": "top", "target": one.path("new"), "sync": "none", "job_id": "b"}
        said.append(one.ask("drive-backup", **arguments))
        run("qemu-io", "-f", "raw", "-c", "write -P 9 768k 64k", uri_of(one))
        said.append(one.ask("job-cancel", id="b"))
        one.until("null b")
        said += [one.ask("nbd-server-stop"), facts(one, "new")]
        run("qemu-io", "-U", "-r", "-f", "qcow2", "-c", "read -P 3 768k 64k", one.path("new"))
        run("qemu-io", "-U", "-r", "-f", "qcow2", "-c", "read -P 9 768k 64k", one.path("top"))
        return said

    same(both, steps)


@pytest.mark.parametrize("end", ["together", "failure"])
def test_backups_to_files_in_a_transaction(both, end):
    def steps(one):
        actions = [
            {
                "type": "drive-backup",
                "data": {
                    "job-id": f"t{number}",
                    "device": "top",
                    "target": one.path(f"new{number}"),
                    "sync": "full",
                    "auto-finalize": False,
                },
            }
            for number in (1, 2)
        ]
        if end == "failure":
            reply = one.ask("transaction", actions=[*actions, {"type": "abort", "data": {}}])
            return reply, nodes(one), facts(one, "new1")
        reply = one.ask("transaction", actions=actions, properties={"completion-mode": "grouped"})
        one.until('BLOCK_JOB_PENDING t1 {"type": "backup"}')
        # Which of the two has work left for longer is chance.
        one.said.clear()
        answer = one.ask("job-finalize", id="t1")
        return reply, answer, one.ask("query-jobs"), nodes(one)

    same(both, steps)
    if end == "together":
        run("qemu-img", "compare", "-q", "-U", both[0].path("top"), both[0].path("new2"))


ERRORS = {
    "no such device": {"device": "nope"},
    "no such format": {"format": "nope"},
    "a format without creation": {"format": "bochs"},
    "a protocol": {"format": "null-co"},
    "missing options": {"format": "luks"},
    "no such file": {"mode": "existing"},
    "no such driver": {"mode": "existing", "format": "nope"},
    "no such directory": {"target": "/nonexistent/new"},
    "no name": {"target": ""},
    "a file in use": {"target": "top"},
    "a job's name": {"job_id": "1 j"},
    "no job's name": {"job_id": ""},
    "a negative speed": {"speed": -1},
}
MIRROR_ERRORS = ERRORS | {
    "sync by a bitmap": {"sync": "bitmap"},
    "a node's name": {"node_name": "1a"},
    "a node's name that is taken": {"node_name": "mid"},
    "a node to replace, and no name": {"replaces": "top"},
    "no such node to replace": {"replaces": "nope", "node_name": "new"},
    "granularity": {"granularity": 100},
    "granularity, no power of two": {"granularity": 1000},
    "buffers": {"buf_size": -1},
    "another command's argument": {"filter_node_name": "f"},
}
BACKUP_ERRORS = ERRORS | {
    "a filter's name": {"filter_node_name": "1a"},
    "a filter's name that is taken": {"filter_node_name": "top"},
    "compression that is not there": {"compress": True, "format": "raw"},
    "a bitmap that is not there": {"sync": "bitmap", "bitmap": "x", "bitmap_mode": "never"},
    "no bitmap": {"sync": "incremental"},
    "pieces": {"x_perf": {"max-chunk": 1000}},
    "another command's argument": {"node_name": "n"},
}


@pytest.mark.parametrize(
    "command, errors", [("drive-mirror", MIRROR_ERRORS), ("drive-backup", BACKUP_ERRORS)]
)
def test_errors(both, command, errors):
    """The words, and what is left: the file in some cases, and never a node."""

    def steps(one):
        said = []
        for name, wrong in errors.items():
            target = one.path(wrong.get("target", "new") if wrong.get("target") != "" else "")
            if "/" in wrong.get("target", "") or wrong.get("target") == "":
                target = wrong["target"]
            arguments = {"device": "top", "sync": "full", "job_id": "j"} | wrong
            reply = one.ask(command, **{**arguments, "target": target})
            text = str(reply).replace(str(one.directory), "")
            left = one.directory / "new.img"
            said.append((name, text, left.exists(), nodes(one)))
            left.unlink(missing_ok=True)
        return said

    ours, theirs = (steps(one) for one in both)
    differ = [pair for pair in zip(ours, theirs) if pair[0] != pair[1]]
    assert not differ, repr(differ)


@pytest.mark.parametrize("format", ["raw", "qcow2", "vmdk", "qed"])
def test_formats_of_the_file(both, format):
    def steps(one):
        arguments = {"device": "top", "target": one.path("new"), "sync": "full", "job_id": "m"}
        said = [one.ask("drive-mirror", format=format, **arguments)]
        if "error" in said[0]:
            return said
        one.until('BLOCK_JOB_READY m {"type": "mirror"}')
        said.append(one.ask("job-cancel", id="m"))
        one.until("null m")
        return [*said, facts(one, "new")]

    same(both, steps)


def test_a_file_that_is_there(both):
    """Its format is looked for, and what it refers to is opened."""

    def steps(one):
        one.image("new", "qcow2", "base")
        arguments = {"device": "top", "target": one.path("new"), "sync": "full", "job_id": "m"}
        said = [one.ask("drive-mirror", mode="existing", **arguments)]
        one.until('BLOCK_JOB_READY m {"type": "mirror"}')
        said += [nodes(one), one.ask("block-job-cancel", device="m")]
        one.until("null m")
        return [*said, facts(one, "new")]

    same(both, steps)
    run("qemu-img", "compare", "-q", "-U", both[0].path("top"), both[0].path("new"))


@pytest.mark.parametrize("unmap", [True, False])
def test_zeroes_in_the_target_take_space_or_not(both, unmap):
    def steps(one):
        zeros = {"driver": "null-co", "node-name": "zeros", "size": 4 << 20, "read-zeroes": True}
        one.ask("blockdev-add", **zeros)
        one.names.append("zeros")
        with open(one.path("new"), "wb") as file:
            file.write(b"x" * (4 << 20))
        arguments = {"device": "zeros", "target": one.path("new"), "sync": "full", "job_id": "m"}
        reply = one.ask("drive-mirror", mode="existing", format="raw", unmap=unmap, **arguments)
        one.until('BLOCK_JOB_READY m {"type": "mirror"}')
        one.ask("block-job-cancel", device="m")
        one.until("null m")
        with open(one.path("new"), "rb") as file:
            return reply, file.read() == bytes(4 << 20)

    same(both, steps)

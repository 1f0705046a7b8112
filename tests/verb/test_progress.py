"""--progress json: the lines of docs/progress.md."""
import json
import os
import subprocess

import pytest

from conftest import CAIRN, sparse_disk

pytestmark = pytest.mark.any_engine


def run(*words, ok=True):
    """The program with a pipe as the descriptor; gives its lines and how it ended."""
    reader, writer = os.pipe()
    words = [str(writer) if word == "FD" else word.replace("FD", str(writer)) for word in words]
    done = subprocess.Popen(
        [CAIRN, *words], pass_fds=[writer], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    os.close(writer)
    with open(reader) as lines:
        got = [json.loads(line) for line in lines]
    out, err = done.communicate(timeout=60)
    assert not ok or done.returncode == 0, err
    return got, done.returncode, out.decode(), err.decode()


def check(lines, *phases):
    assert [line["state"] for line in lines] == ["running"] * (len(lines) - 1) + ["ended"]
    assert list(dict.fromkeys(line["phase"] for line in lines)) == list(phases)
    for line in lines:
        assert set(line) == {"progress", "phase", "state", "done", "total", "rate", "elapsed-ms"}
        assert line["progress"] == 1 and all(
            type(line[key]) is int for key in line if key not in ("phase", "state")
        )
        assert 0 <= line["done"] <= line["total"] and line["rate"] >= 0
    for before, after in zip(lines, lines[1:]):
        if before["phase"] == after["phase"]:
            assert before["done"] <= after["done"] and before["elapsed-ms"] <= after["elapsed-ms"]
        else:
            assert before["done"] == before["total"]


@pytest.fixture
def disks(folder, qemu):
    sparse_disk("a.raw", 5 << 20, pieces=40)
    qemu("convert", "-O", "qcow2", "a.raw", "a.qcow2")
    qemu("create", "-q", "-f", "qcow2", "-b", "a.qcow2", "-F", "qcow2", "over.qcow2")
    return folder


@pytest.mark.parametrize(
    "verb,words",
    [
        ("convert", ["a.raw", "t.qcow2"]),
        ("convert", ["-c", "-q", "a.raw", "t.qcow2"]),
        ("compare", ["a.raw", "a.qcow2"]),
        ("hash", ["a.qcow2"]),
        ("commit", ["over.qcow2"]),
        ("rebase", ["-b", "a.raw", "-F", "raw", "over.qcow2"]),
    ],
)
def test_lines(disks, verb, words):
    lines, _, out, err = run(verb, "--progress", "json,fd=FD", *words)
    check(lines, *(["look-over"] if verb in ("commit", "rebase") else []), verb)
    assert lines[-1]["done"] == lines[-1]["total"] == 5 << 20
    assert "%" not in out + err


def test_phases_of_verify(disks):
    lines, _, _, _ = run("convert", "--verify", "--progress=json,fd=FD", "a.raw", "t.qcow2")
    check(lines, "convert", "verify")
    assert [line["done"] for line in lines if line["phase"] == "verify"][-1] == 5 << 20


def test_slow_work_reports_in_between(disks):
    lines, _, _, _ = run(
        "convert", "-r", "4M", "--progress", "json,fd=FD", "-S", "0", "a.raw", "t.raw"
    )
    check(lines, "convert")
    assert len(lines) >= 5
    assert 1 << 20 < lines[-2]["rate"] < 16 << 20


def test_failed_work_ends_its_lines(disks):
    lines, code, _, err = run(
        "convert",
        "--progress",
        "json,fd=FD",
        "--image-opts",
        "driver=raw,file.driver=fault,file.on=read,file.file.filename=a.raw",
        "t.raw",
        ok=False,
    )
    assert code == 1 and "error while reading" in err
    assert (
        lines[-1]["state"] == "ended"
        and lines[-1]["done"] < lines[-1]["total"]
        or lines[-1]["total"] == 0
    )


def test_standard_error_is_the_default_and_wrong_ones_are_told(disks, cairn, ours):
    check(
        [
            json.loads(line)
            for line in cairn("convert", "--progress", "json", "a.raw", "t.raw").err.splitlines()
        ],
        "convert",
    )
    for words in (
        ["json,fd=77"],
        ["json,fd=x"],
        ["json,nope"],
        ["json,fd=-1"],
        ["json,fd=99999999999"],
    ):
        done = cairn("convert", "--progress", *words, "a.raw", "t.raw", ok=False)
        assert done.code == 1 and ("not open" in done.err or "Invalid progress option" in done.err)
    assert cairn("info", "--progress", "json", "a.raw", ok=False).code == 1
    # Without a word for it the option is what it was; under the other name it always is.
    assert "100" in cairn("convert", "--progress", "--overwrite", "a.raw", "t.raw").out
    assert "Could not open 'json'" in ours("convert", "--progress", "json", "t.raw", ok=False).err


def test_a_reader_that_goes_away_stops_nothing(disks):
    reader, writer = os.pipe()
    os.close(reader)
    subprocess.run(
        [CAIRN, "convert", "--progress", f"json,fd={writer}", "a.raw", "t.qcow2"],
        pass_fds=[writer],
        check=True,
    )
    os.close(writer)
    subprocess.run(["qemu-img", "compare", "a.raw", "t.qcow2"], check=True)


# --- verbs whose work is in the tables ---


def lines_of(*words):
    lines, _, out, err = run(*words)
    assert lines[-1]["state"] == "ended" and "%" not in err
    assert [line["state"] for line in lines[:-1]] == ["running"] * (len(lines) - 1)
    for before, after in zip(lines, lines[1:]):
        if before["phase"] == after["phase"]:
            assert before["done"] <= after["done"] and before["elapsed-ms"] <= after["elapsed-ms"]
    return lines, out


def phases(lines):
    return list(dict.fromkeys(line["phase"] for line in lines))


@pytest.mark.parametrize(
    "verb, words, named",
    [
        ("map", ["a.qcow2"], ["map"]),
        ("dd", ["if=a.qcow2", "of=t.raw"], ["dd"]),
        ("measure", ["-O", "qcow2", "a.qcow2"], ["measure"]),
        ("check", ["a.qcow2"], ["check"]),
        ("bench", ["-c", "2000", "-d", "4", "a.qcow2"], ["bench"]),
        ("create", ["-f", "raw", "-o", "preallocation=full", "t.raw", "8M"], ["preallocate"]),
        ("create", ["-f", "raw", "-o", "preallocation=falloc", "t.raw", "8M"], ["preallocate"]),
        ("create", ["-f", "qcow2", "-o", "preallocation=metadata", "t.qcow2", "8M"], ["allocate"]),
        ("resize", ["--preallocation=full", "-f", "raw", "a.raw", "+8M"], ["preallocate"]),
        ("resize", ["--preallocation=full", "a.qcow2", "+8M"], ["preallocate", "allocate"]),
        ("snapshot", ["-c", "one", "a.qcow2"], ["share"]),
        ("bitmap", ["--add", "a.qcow2", "b"], ["bitmap"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_every_slow_verb_reports(disks, verb, words, named):
    lines, _ = lines_of(verb, "--progress", "json,fd=FD", *words)
    assert phases(lines) == named
    assert lines[-1]["done"] == lines[-1]["total"] > 0


def test_snapshots_report(disks, qemu):
    qemu("snapshot", "-c", "one", "a.qcow2")
    subprocess.run(["qemu-io", "-c", "write 0 1M", "a.qcow2"], check=True, capture_output=True)
    for letter in "ad":
        lines, _ = lines_of("snapshot", "--progress", "json,fd=FD", "-" + letter, "one", "a.qcow2")
        assert lines[-1]["total"] > 0 and "count" in phases(lines)
    qemu("check", "a.qcow2")


@pytest.mark.parametrize("fmt", ["qcow", "vdi", "vhdx", "vpc", "vmdk", "qed", "parallels"])
def test_checks_of_all_formats_report(disks, qemu, fmt):
    qemu("convert", "-O", fmt, "a.raw", "x")
    lines, _ = lines_of("check", "--progress", "json,fd=FD", "-f", fmt, "x")
    assert phases(lines) == ["check"] and lines[-1]["done"] == lines[-1]["total"] > 0


def test_every_verb_that_may_be_slow_knows_the_option(cairn):
    for verb in (
        "amend",
        "backup",
        "bench",
        "bitmap",
        "check",
        "commit",
        "compact",
        "compare",
        "convert",
        "create",
        "dd",
        "hash",
        "map",
        "measure",
        "rebase",
        "resize",
        "restore",
        "snapshot",
    ):
        assert "--progress" in cairn(verb, "--help").out, verb


def test_results_are_not_mixed_with_progress(disks, cairn, ours):
    for words in (
        ["map", "a.qcow2"],
        ["measure", "-O", "qcow2", "a.qcow2"],
        ["check", "a.qcow2"],
        ["dd", "if=a.raw", "of=t.raw", "--overwrite"],
    ):
        plain = cairn(*words)
        told = cairn(words[0], "-p", *words[1:])
        assert told.out == plain.out and "/100%)" not in told.out
        assert ours(*words, "-p", ok=False).code == 1

"""qemu-io under QEMU's name next to the real one: fault filters and their rules, reopening, copies on read, disks kept several
times, and names that filters pass on."""
import json
import os
import re

import pytest

from conftest import CAIRN, call

pytestmark = [pytest.mark.any_engine, pytest.mark.words]

COMPAT = CAIRN.parent / "compat"


def plain(text):
    """Without times and rates."""
    return re.sub(r"ops; \S+( sec)? \(.*?/sec and \S+ ops/sec\)", "ops; TIME", text)


def start(program, words, **more):
    return call(program, *words, ok=False, **more)


@pytest.fixture
def both(folder):
    """Runs a tool of ours and QEMU's in directories of their own, made alike by SETUP command lines of the real tools."""
    for where in ("mine", "theirs"):
        (folder / where).mkdir()

    class Both:
        mine, theirs = folder / "mine", folder / "theirs"

        def setup(self, *line):
            for where in (self.mine, self.theirs):
                call(line[0], *line[1:], cwd=where)

        def file(self, name, text):
            for where in (self.mine, self.theirs):
                (where / name).write_text(text)

        def alike(self, tool, *words, errors=True, **more):
            mine = start(COMPAT / tool, words, cwd=self.mine, **more)
            theirs = start(tool, words, cwd=self.theirs, **more)
            assert plain(mine.out) == plain(theirs.out), (mine.err, theirs.err)
            assert mine.code == theirs.code, (mine.err, theirs.err)
            if errors:
                assert mine.err == theirs.err
            return mine

    return Both()


RULES = [
    'once ="on"',
    'once= "on"',
    'once="on"',
    '  once = "on"',
    'once = "on" and more',
    'once = "on',
    "once = on",
    'once\t=\t"on"',
    "[inject-error]x",
    "[none-such]",
    ' [set-state "a"]',
    "[ set-state ]",
    '  # once = "x"',
    '#once = "x"',
    ';x = "1"',
    'once = ""',
    'foo = "1"',
    'sector = "abc"',
]


@pytest.mark.parametrize("rule", RULES)
def test_grammar_of_rules(both, rule):
    both.setup("qemu-img", "create", "-q", "-f", "raw", "a.raw", "64k")
    both.file(
        "rules", f'[inject-error]\nevent = "write_aio"\nerrno = "28"\niotype = "write"\n{rule}\n\n'
    )
    done = start(
        COMPAT / "qemu-io",
        ["-f", "raw", "-c", "write 0 512", "blkdebug:rules:a.raw"],
        cwd=both.mine,
    )
    real = start(
        "qemu-io", ["-f", "raw", "-c", "write 0 512", "blkdebug:rules:a.raw"], cwd=both.theirs
    )
    assert plain(done.out) == plain(real.out) and done.code == real.code
    assert done.err.splitlines()[:1] == real.err.splitlines()[:1]


def test_names_reach_the_lowest_node(both):
    both.setup("qemu-img", "create", "-q", "-f", "qcow2", "a.qcow2", "1M")
    both.file("rules", "")
    for options in (
        "driver=qcow2,file.driver=file",
        "driver=blkdebug,image.driver=qcow2",
        "driver=copy-on-read,file.driver=qcow2",
        "driver=copy-on-read,file.driver=blkdebug,file.config=rules,file.image.driver=qcow2",
        "driver=qcow2,file.driver=blkdebug",
    ):
        both.alike("qemu-io", "-c", f"open -o {options} a.qcow2", "-c", "length", "-c", "read 0 4k")
    both.alike("qemu-io", "-c", "open -r -o driver=copy-on-read,file.driver=qcow2 a.qcow2")


@pytest.mark.parametrize(
    "options",
    [
        "driver=null-co",
        "driver=null-co,read-zeroes=on",
        "driver=blkdebug,image.driver=null-co",
        "driver=blkdebug,align=4096,image.driver=null-co",
        "driver=blkdebug,inject-error.0.event=read_aio,image.driver=null-co",
    ],
)
def test_names_of_filters(both, options):
    mine = start(COMPAT / "qemu-img", ["info", "--image-opts", options], cwd=both.mine)
    real = start("qemu-img", ["info", "--image-opts", options], cwd=both.theirs)
    assert mine.out.splitlines()[0] == real.out.splitlines()[0]


def test_reopen_tells_what_cannot_change(both):
    both.setup("qemu-img", "create", "-q", "-f", "qcow2", "base.qcow2", "1M")
    both.setup(
        "qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2"
    )
    opened = "driver=qcow2,node-name=top,file.node-name=bytes,backing.node-name=below"
    for change in (
        "node-name=other",
        "file.node-name=other",
        "backing.node-name=other",
        "driver=raw",
        "file.driver=null-co",
        "backing.driver=raw",
        "node-name=top",
        "file.node-name=bytes",
        "backing.node-name=below",
        "driver=qcow2",
        "file.driver=file",
        "backing.driver=qcow2",
        "cache.no-flush=x",
        "cache.direct=x",
        "auto-read-only=x",
        "read-only=x",
        "lazy-refcounts=x",
        "overlap-check=x",
        "overlap-check.template=x",
        "overlap-check.template=all",
        "overlap-check.active-l2=off",
        "cache-clean-interval=4294967296",
        "l2-cache-size=1M,cache-size=64k",
        "overlap-check=constant,overlap-check.template=all",
        "refcount-cache-size=1000T",
        "l2-cache-entry-size=33",
    ):
        both.alike(
            "qemu-io",
            "-c",
            f"open -o {opened} top.qcow2",
            "-c",
            f"reopen -o {change}",
            "-c",
            "read 0 512",
        )


def test_reopen_replaces_sets_of_options(both):
    both.setup("qemu-img", "create", "-q", "-f", "qcow2", "a.qcow2", "1M")
    steps = [
        "l2-cache-size=128k",
        "refcount-cache-size=256k",
        "cache-size=1M",
        "overlap-check=all",
        "overlap-check.template=none",
        "overlap-check=constant",
    ]
    words = [word for step in steps for word in ("-c", f"reopen -o {step}")]
    both.alike("qemu-io", *words, "-c", "write 0 64k", "-c", "read 0 64k", "a.qcow2")


def test_info_of_a_driver_that_has_none(both):
    both.alike("qemu-io", "-c", "open -o driver=null-co", "-c", "info", "-c", "length")


def test_copy_on_read_takes_all_that_the_image_lacks(both):
    """Also zeroes, also without a layer below, and single subclusters."""
    both.setup("qemu-img", "create", "-q", "-f", "raw", "base.raw", "4M")
    both.setup("qemu-io", "-f", "raw", "-c", "write -q -P 5 2M 64k", "base.raw")
    both.setup(
        "qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "top.qcow2"
    )
    both.setup("qemu-io", "-c", "write -q -z 1M 64k", "top.qcow2")
    read = ["-c", "read -P 0 70k 200k", "-c", "read -P 0 960k 128k", "-c", "read -P 5 2090k 1k"]
    both.alike("qemu-io", "-C", *read, "top.qcow2")
    both.alike("qemu-io", "-c", "map", "top.qcow2")
    both.setup("qemu-img", "create", "-q", "-f", "qcow2", "alone.qcow2", "1000")
    both.alike("qemu-io", "-C", "-c", "read 0 1000", "alone.qcow2")
    both.alike("qemu-io", "-c", "map", "alone.qcow2")
    both.setup(
        "qemu-img",
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        "extended_l2=on",
        "-b",
        "base.raw",
        "-F",
        "raw",
        "sub.qcow2",
    )
    both.setup("qemu-io", "-c", "write -q -P 7 2050k 2k", "sub.qcow2")
    both.alike("qemu-io", "-C", "-c", "read -P 5 2054k 4k", "sub.qcow2")
    both.alike("qemu-io", "-c", "map", "sub.qcow2")
    call("qemu-img", "check", "sub.qcow2", cwd=both.mine)


def test_copy_on_read_leaves_what_is_there(both):
    both.setup("qemu-img", "create", "-q", "-f", "raw", "base.raw", "1M")
    both.setup(
        "qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "top.qcow2"
    )
    both.setup("qemu-io", "-c", "write -q -P 3 128k 64k", "top.qcow2")
    both.file("rules", '[inject-error]\nevent = "cor_write"\nsector = "256"\n')
    line = "open -C -o driver=blkdebug,config=rules,image.driver=qcow2 top.qcow2"
    both.alike("qemu-io", "-c", line, "-c", "read -P 3 128k 64k", "-c", "read -P 0 192k 64k")


def test_requests_that_are_widened_can_be_stopped(both):
    both.setup("qemu-img", "create", "-q", "-f", "raw", "a.raw", "64k")
    lines = [
        "open -o driver=raw,file.align=4k blkdebug::a.raw",
        "break pwritev_rmw_head A",
        "aio_write -P 10 4608 512",
        "wait_break A",
        "resume A",
        "aio_flush",
        "break pwritev_rmw_after_tail B",
        "aio_write -P 11 8192 512",
        "wait_break B",
        "aio_write -P 12 8704 512",
        "resume B",
        "aio_flush",
        "read -P 10 4608 512",
        "read -P 11 8192 512",
        "read -P 12 8704 512",
    ]
    done = start(
        COMPAT / "qemu-io",
        [word for line in lines for word in ("-c", line)],
        cwd=both.mine,
        timeout=30,
    )
    assert done.code == 0, done.err
    assert done.out.count("Suspended request") == 2 and "verification failed" not in done.out


def test_directories_and_devices(both):
    both.setup("mkdir", "d")
    for driver in ("file", "host_device"):
        for mode in ([], ["-r"]):
            both.alike(
                "qemu-io", *mode, "--image-opts", f"driver={driver},filename=d", "-c", "length"
            )
    both.alike("qemu-io", "--image-opts", "driver=host_device,filename=/dev/null", "-c", "length")


def test_zeroing_the_end_of_an_image_with_subclusters(both):
    """No subcluster past the end of the disk is touched."""
    both.setup("qemu-img", "create", "-q", "-f", "qcow2", "-o", "extended_l2=on", "a.qcow2", "99k")
    both.alike("qemu-io", "-c", "write -z 64k 35k", "a.qcow2")
    tables = [(where / "a.qcow2").read_bytes() for where in (both.mine, both.theirs)]
    begin = int.from_bytes(tables[1][40:48], "big")
    bitmaps = []
    for table in tables:
        l2 = int.from_bytes(table[begin : begin + 8], "big") & 0xFFFFFFFFFFFE00
        bitmaps.append(table[l2 + 16 : l2 + 32].hex())
    assert bitmaps[0] == bitmaps[1]


def test_version_of_qemu_nbd():
    done = call(COMPAT / "qemu-nbd", "--version")
    assert re.match(r"\S*qemu-nbd 10\.0\.2 \(", done.out)


# --- quorum ---

CHILDREN = ",".join(f"children.{i}.file.filename={i}.raw,children.{i}.driver=raw" for i in range(3))


@pytest.fixture
def disks(both):
    for i in range(3):
        both.setup("qemu-img", "create", "-q", "-f", "raw", f"{i}.raw", "1M")
        both.setup("qemu-io", "-f", "raw", "-c", "write -q -P 5 0 1M", f"{i}.raw")
    both.setup("qemu-io", "-f", "raw", "-c", "write -q -P 9 64k 64k", "2.raw")
    return both


@pytest.mark.parametrize(
    "options",
    [
        CHILDREN,
        f"vote-threshold=0,{CHILDREN}",
        f"vote-threshold=4,{CHILDREN}",
        f"vote-threshold=-1,{CHILDREN}",
        f"vote-threshold=x,{CHILDREN}",
        "vote-threshold=1",
        f"vote-threshold=2,blkverify=on,{CHILDREN}",
        f"vote-threshold=2,read-pattern=any,{CHILDREN}",
        f"vote-threshold=2,foo=1,{CHILDREN}",
        "vote-threshold=1,children.a.file.filename=0.raw",
        "vote-threshold=1,children.1.file.filename=0.raw",
        "vote-threshold=1,children.0.filename=0.raw",
        f"vote-threshold=2,{CHILDREN}",
        f"vote-threshold=3,{CHILDREN}",
        f"vote-threshold=2,read-pattern=fifo,{CHILDREN}",
        f"vote-threshold=1,{CHILDREN}",
    ],
)
def test_quorum_options_and_votes(disks, options):
    disks.alike("qemu-io", "-r", "--image-opts", "-c", "read -P 5 0 1M", "driver=quorum," + options)


def test_quorum_rewrites_the_minority(disks):
    disks.alike(
        "qemu-io",
        "--image-opts",
        "-c",
        "read -P 5 0 1M",
        f"driver=quorum,vote-threshold=2,rewrite-corrupted=on,{CHILDREN}",
    )
    assert (disks.mine / "2.raw").read_bytes() == bytes([5]) * (1 << 20)


def test_quorum_writes_to_all(disks):
    disks.alike(
        "qemu-io",
        "--image-opts",
        "-c",
        "write -P 7 0 128k",
        "-c",
        "write -z 4k 4k",
        "-c",
        "discard 8k 4k",
        "-c",
        "map",
        "-c",
        "read -P 7 64k 64k",
        f"driver=quorum,vote-threshold=3,{CHILDREN}",
    )
    for i in range(3):
        assert (disks.mine / f"{i}.raw").read_bytes() == (disks.theirs / f"{i}.raw").read_bytes()


def test_quorum_of_which_one_fails(disks):
    tree = {
        "driver": "quorum",
        "vote-threshold": 2,
        "children": [
            {"driver": "raw", "file": {"driver": "file", "filename": "0.raw"}},
            {"driver": "raw", "file": {"driver": "file", "filename": "1.raw"}},
            {
                "driver": "blkdebug",
                "inject-error": [
                    {"event": "none", "iotype": "write"},
                    {"event": "none", "iotype": "read"},
                ],
                "image": {"driver": "file", "filename": "2.raw"},
            },
        ],
    }
    lines = ["-c", "read -P 5 0 64k", "-c", "write -P 6 0 64k", "-c", "read -P 6 0 64k"]
    disks.alike("qemu-io", *lines, "json:" + json.dumps(tree))
    tree["vote-threshold"] = 3
    disks.alike("qemu-io", *lines, "json:" + json.dumps(tree))


def test_quorum_told(disks):
    for output in ("human", "json"):
        disks.alike(
            "qemu-img",
            "info",
            "--output",
            output,
            "--image-opts",
            f"driver=quorum,vote-threshold=2,{CHILDREN}",
        )
    disks.alike(
        "qemu-img",
        "map",
        "--output",
        "json",
        "--image-opts",
        f"driver=quorum,vote-threshold=2,{CHILDREN}",
    )


def test_quorum_of_unequal_sizes(disks):
    for where in (disks.mine, disks.theirs):
        os.truncate(where / "1.raw", 2 << 20)
    disks.alike(
        "qemu-io",
        "--image-opts",
        "-c",
        "length",
        f"driver=quorum,vote-threshold=2,{CHILDREN}",
        errors=False,
    )


def test_quorum_that_verifies_reports_the_place(disks):
    two = "children.0.file.filename=0.raw,children.0.driver=raw,children.1.file.filename=2.raw,children.1.driver=raw"
    done = start(
        COMPAT / "qemu-io",
        [
            "-r",
            "--image-opts",
            "-c",
            "read 0 1M",
            f"driver=quorum,vote-threshold=2,blkverify=on,{two}",
        ],
        cwd=disks.mine,
    )
    assert (
        done.code == 1
        and "quorum: offset=0 bytes=1048576 contents mismatch at offset 65536\n" in done.err
    )


# --- nothing stays behind in memory ---


@pytest.mark.parametrize("fmt", ["qcow2", "qed", "qcow", "vmdk"])
@pytest.mark.parametrize("cache", ["unsafe", "writeback"])
def test_conversion_over_a_backing_file_is_written(folder, qemu, fmt, cache):
    """With cache=unsafe, the default of conversions, nobody flushes the target: its tables are written when it is closed."""
    qemu("create", "-q", "-f", fmt, folder / f"base.{fmt}", "8M")
    call("qemu-io", "-f", fmt, "-c", "write -q -P 42 0 1M", folder / f"base.{fmt}")
    qemu("create", "-q", "-f", fmt, "-b", folder / f"base.{fmt}", "-F", fmt, folder / f"top.{fmt}")
    call(
        "qemu-io",
        "-f",
        fmt,
        "-c",
        "write -q -P 43 512 512",
        "-c",
        "write -q -P 44 2M 64k",
        folder / f"top.{fmt}",
    )
    call(
        COMPAT / "qemu-img",
        "convert",
        "-t",
        cache,
        "-f",
        fmt,
        "-O",
        fmt,
        "-B",
        folder / f"base.{fmt}",
        "-o",
        f"backing_fmt={fmt}",
        folder / f"top.{fmt}",
        folder / f"copy.{fmt}",
    )
    qemu("compare", "-f", fmt, "-F", fmt, folder / f"top.{fmt}", folder / f"copy.{fmt}")


def test_open_takes_options_where_the_program_does(both):
    both.setup("qemu-img", "create", "-q", "-f", "qcow2", "a.qcow2", "1M")
    line = "open driver=qcow2,file.filename=a.qcow2\nwrite 0 64k\nlength\nclose\nopen a.qcow2\n"
    mine, real = (
        call(tool, "--image-opts", cwd=where, input=line, ok=False)
        for tool, where in ((COMPAT / "qemu-io", both.mine), ("qemu-io", both.theirs))
    )
    assert plain(mine.out) == plain(real.out) and mine.code == real.code

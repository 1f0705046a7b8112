"""`cairn io` next to the real qemu-io: output, exit codes, the prompt, breakpoints, a terminal."""
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

import pytest

from conftest import CAIRN, call

OURS = CAIRN.parent / "compat" / "qemu-io"


def plain(text):
    """Without times and rates, and without what names the release."""
    text = re.sub(r"ops; \S+( sec)? \(.*?/sec and \S+ ops/sec\)", "ops; TIME", text)
    return re.sub(r"^(\d+,1),\d+:\d\d:\d\d\.\d\d,\S+$", r"\1,TIME", text, flags=re.M)


def run(program, words, **more):
    return call(program, *words, ok=False, **more)


@pytest.fixture
def images(folder, qemu):
    def make(where):
        where.mkdir()
        for name, fmt, size in (
            ("t.qcow2", "qcow2", "4M"),
            ("t.raw", "raw", "1M"),
            ("zero.raw", "raw", "0"),
        ):
            qemu("create", "-q", "-f", fmt, where / name, size)
        qemu("create", "-q", "-f", "raw", where / "other.raw", "4M")
        qemu("create", "-q", "-f", "qcow2", "-b", "t.raw", "-F", "raw", where / "over.qcow2")
        (where / "pattern").write_bytes(b"0123456789")
        (where / "once.cfg").write_text(
            '[inject-error]\nevent = "read_aio"\nerrno = "28"\nonce = "on"\n'
        )
        (where / "states.cfg").write_text(
            '# leads through three states\n[set-state]\nstate = "1"\nevent = "write_aio"\nnew_state = "2"\n\n'
            '[inject-error "late"]\nstate = "2"\nevent = "write_aio"\niotype = "write"\nerrno = "28"\n'
        )
        (where / "bad.cfg").write_text("[bad]\n")
        (where / "event.cfg").write_text('[inject-error]\nevent = "nope"\n')
        (where / "key.cfg").write_text('[inject-error]\nevent = "none"\nfoo = "1"\n')
        (where / "none.cfg").write_text('[inject-error]\nerrno = "5"\n')

    make(folder / "mine")
    make(folder / "theirs")
    return folder


def both(images, words, **more):
    mine = run(OURS, words, cwd=images / "mine", **more)
    theirs = run("qemu-io", words, cwd=images / "theirs", **more)
    assert plain(mine.out) == plain(theirs.out), (mine.err, theirs.err)
    assert mine.code == theirs.code, (mine.err, theirs.err)
    return mine, theirs


def commands(*lines):
    return [word for line in lines for word in ("-c", line)]


BLKDEBUG = "driver={},file.driver=blkdebug,file.image.driver=file,file.image.filename={}"
RAW_DEBUG = BLKDEBUG.format("raw", "t.raw")
QCOW2_DEBUG = BLKDEBUG.format("qcow2", "t.qcow2")

# Each row: the command line behind the program's name.
ROWS = (
    [
        commands(
            "write -P 1 0 64k",
            "read -P 1 0 64k",
            "read -P 2 0 10",
            "read -v 65530 40",
            "length",
            "map",
        )
        + ["t.qcow2"],
        commands(
            "read",
            "read -z 0 1",
            "read -P 300 0 1",
            "read 0 1 2 3",
            "read 0 x",
            "read x 0",
            "read -l 5 0 10",
            "read -P 0 -l 50 0 10",
            "read -P 0 -s 4 0 10",
            "read -P 0 -s 4 -l 7 0 10",
            "read -P 1 -s 2 0 10",
            "read 0 9999999999999999999999",
            "read 0 3G",
            "read 4M 1",
            "read 0 0",
            "read -C 0 512",
            "read -q 0 512",
            "read -r 0 1k",
            "read -p 0 1k",
            "read -a 0 1",
            "read 0 1.5k",
            "read 5 65537",
            "read 0x10 1K",
        )
        + ["t.qcow2"],
        commands(
            "write",
            "write -z -P 1 0 1k",
            "write -u 0 1k",
            "write -n 0 1k",
            "write -b -z 0 1k",
            "write -f -c 0 1k",
            "write -s missing 0 1k",
            "write -s /dev/null 0 1k",
            "write -s pattern 3 25",
            "read -v 0 40",
            "write -s pattern -P 1 0 1",
            "write -P -1 0 1",
            "write -P 256 0 1",
            "write -P 1x 0 1",
            "write -P 0377 0 1",
            "write 0 3G",
            "write -z 0 3G",
            "write -z -n 0 3G",
            "write 5M 10",
            "write -r 0 1k",
            "write -r -z 0 1k",
            "write -f 0 4k",
            "write -C 0 4k",
            "write -1 1",
            "write 0 0",
            "write -z 0 0",
            "write -z 1000 100000",
            "write -z -u 0 64k",
            "write -q 1M 1",
            "map",
            "read -v 0 16",
        )
        + ["t.qcow2"],
        commands(
            "write -c 0 64k",
            "write -c 10 64k",
            "write -c 0 512",
            "write -c 65536 128k",
            "read -P 0xcd 0 192k",
            "map",
        )
        + ["t.qcow2"],
        commands(
            "write -b 0 1k",
            "read -b -P 0xcd 0 1k",
            "write -b -P 7 64k 512",
            "read -b -P 7 64k 512",
            "read -b 10 512",
            "read -b 0 10",
            "read -b -r 0 512",
            "write -b 3 512",
            "info",
        )
        + ["t.qcow2"],
        commands(
            "write -c 0 64k",
            "read -b 0 512",
            "write -b 0 512",
            "write -z -n 0 64k",
            "write -z 0 100",
        )
        + ["-f", "raw", "t.raw"],
        commands(
            "readv 0 512 1k",
            "readv 0",
            "readv -v 0 20 20",
            "readv -P 1 0 10 10",
            "readv 0 3G",
            "writev 0 512 512",
            "writev -P 5 0 x",
            "writev 0 2147483136 512",
            "writev -q 0 1 1",
            "writev -b 0 1",
            "writev -f 0 1 2 3",
            "readv -C 0 512 512",
            "writev 4M 1",
        )
        + ["t.qcow2"],
        commands(
            "aio_write -P 3 0 1k",
            "aio_flush",
            "aio_read -P 3 0 1k",
            "aio_flush",
            "aio_read -P 4 0 1k",
            "aio_flush",
            "aio_read -i 0 1k",
            "aio_write -i 0 1k",
            "aio_write -z 0 1k 1k",
            "aio_write -u 0 1k",
            "aio_write -z 0 64k",
            "aio_flush",
            "aio_write 100M 10",
            "aio_flush",
            "aio_read 100M 10",
            "aio_flush",
            "aio_read -v 0 16",
            "aio_flush",
            "aio_write -z 0 x",
            "aio_write -z x 1",
            "aio_write -z -r 0 1k",
            "aio_flush 1",
            "aio_read 0",
            "aio_write -q 0 1",
            "aio_write -C 0 512",
        )
        + ["t.qcow2"],
        commands(
            "discard -C 0 512",
            "discard 0 x",
            "discard x 0",
            "discard -q 0 512",
            "discard 100M 1",
            "discard 0 3G",
            "discard",
            "write 0 64k",
            "discard 0 64k",
            "map",
            "discard 0 0",
        )
        + ["t.qcow2"],
        commands(
            "alloc",
            "alloc 0",
            "alloc 0 1M",
            "alloc 100 1",
            "alloc 512",
            "alloc 0 0",
            "alloc 10M 1",
            "alloc 5 x",
            "alloc 0 5M",
            "map",
            "map 1",
            "length 1",
        )
        + ["-f", "raw", "t.raw"],
        commands("alloc 0", "write 192k 64k", "alloc 0 4M", "map", "info") + ["over.qcow2"],
        commands("info", "length", "map", "info -x") + ["-f", "raw", "t.raw"],
        commands("info", "length") + ["-f", "file", "t.raw"],
        commands("info", "length", "map", "alloc 0", "read 0 0", "read 0 1")
        + ["-f", "raw", "zero.raw"],
        commands(
            "truncate 8M",
            "length",
            "truncate 2M",
            "length",
            "truncate -m foo 8M",
            "truncate -m full 9M",
            "length",
            "map",
            "truncate",
            "truncate x",
            "truncate 1 2",
            "truncate -m metadata 10M",
            "length",
        )
        + ["t.qcow2"],
        commands(
            "truncate 2M",
            "length",
            "truncate 1000",
            "length",
            "truncate -m metadata 3M",
            "truncate -m falloc 3M",
            "length",
        )
        + ["-f", "raw", "t.raw"],
        commands(
            "nope",
            "",
            "help nope",
            "close",
            "read 0 1",
            "aio_flush",
            "flush",
            "length",
            "info",
            "map",
            "alloc 0",
            "break a b",
            "zone_report 0 1",
            "sleep 1",
            "open",
            "close",
            "open -f raw t.raw",
            "open -o driver=raw t.raw",
            "length",
            "open t.raw",
            "close",
            "open -x t.raw",
            "open -r -o driver=raw,file.filename=t.raw",
            "info",
            "write 0 1",
            "discard 0 1",
            "flush",
            "truncate 1",
            "aio_write 0 1",
            "writev 0 1",
            "read 0 512",
            "close",
            "open a b",
            "open missing",
            "open -t foo t.raw",
            "open -d foo t.raw",
            "open -i foo t.raw",
            "open -U -o driver=raw t.raw",
            "open -C -r -o driver=raw t.raw",
            "open -k -o driver=raw t.raw",
            "open -s -r t.qcow2",
            "write 0 512",
            "close",
            "open -s -o driver=raw t.raw",
            "write -P 9 0 512",
            "read -P 9 0 512",
            "info",
            "close",
            "open -o driver=raw t.raw",
            "read -P 0 0 512",
        )
        + ["t.qcow2"],
        commands(
            "reopen -r",
            "write 0 512",
            "reopen -w",
            "write 0 512",
            "reopen -r -w",
            "reopen -c foo",
            "reopen -c none",
            "reopen -c writeback",
            "reopen -c none -o cache.direct=on",
            "reopen -r -o read-only=on",
            "reopen -o driver=raw",
            "reopen -o lazy-refcounts=on",
            "reopen -o foo=bar",
            "reopen x",
            "reopen -c unsafe",
            "reopen -o size=5",
            "reopen -w -w",
            "reopen -o read-only=on",
            "write 0 512",
            "length",
        )
        + ["t.qcow2"],
        commands(
            "sleep x",
            "sleep 1",
            "sleep",
            "sigraise x",
            "sigraise 99999999999999",
            "sigraise 0",
            "break a b",
            "resume b",
            "remove_break b",
            "zone_report 0 1",
            "zone_open 0 512",
            "zone_close 0 512",
            "zone_finish 0 512",
            "zone_reset 0 512",
            "zone_append 0 512",
            "zap -p 0 512",
            "quit",
            "length",
        )
        + ["t.qcow2"],
        commands(
            "sleep -1",
            "sigraise 100",
            "aio_read -i 0 512",
            "aio_write -i 0 512",
            "a",
            "t",
            "aio_flush",
            "quit 1",
        )
        + ["t.qcow2"],
        commands("help"),
        commands("help sleep", "help map", "help length", "? quit"),
        commands("read 0 1"),
        commands(
            "r 0 512",
            "w 0 512",
            "l",
            "i",
            "a 0",
            "d 0 512",
            "f",
            "t 5M",
            "c",
            "o t.qcow2",
            "q",
            "l",
        )
        + ["t.qcow2"],
        commands("r 0 512") + ["missing"],
        commands("r 0 512") + ["-f", "nope", "t.raw"],
        ["--image-opts", "driver=raw"],
        ["--image-opts", "-f", "raw", "t.raw"],
        ["-r", "-C", "t.qcow2"],
        ["-t", "foo", "t.raw"],
        ["-d", "foo", "t.raw"],
        ["-i", "foo", "t.raw"],
        ["-U", "t.raw"],
        ["-k", "t.raw"],
        commands("write 0 1", "read 0 1") + ["-r", "-f", "raw", "t.raw"],
        commands("write -P 9 0 512", "read -P 9 0 512", "info", "map")
        + ["-s", "-f", "raw", "t.raw"],
        commands("write 0 1k", "read -P 0xcd 0 1k") + ["-m", "-n", "-f", "raw", "t.raw"],
        commands("read 0 512", "read 64k 1k", "map") + ["-C", "over.qcow2"],
        commands("read 0 512")
        + ["--object", "secret,id=s,data=x", "--image-opts", "driver=qcow2,file.filename=t.qcow2"],
        # faults
        commands("read 0 512", "read 0 512") + ["blkdebug:once.cfg:t.raw"],
        commands("write 0 512", "write 0 512", "write 0 512", "read 0 512")
        + ["-f", "raw", "blkdebug:states.cfg:t.raw"],
        commands("read 0 512") + ["blkdebug:missing.cfg:t.raw"],
        commands("read 0 512") + ["blkdebug::t.qcow2"],
        commands("read 0 512") + ["blkdebug:t.raw"],
        commands("read 0 512") + ["blkdebug:bad.cfg:t.raw"],
        commands("read 0 512") + ["blkdebug:event.cfg:t.raw"],
        commands("read 0 512") + ["blkdebug:key.cfg:t.raw"],
        commands("read 0 512") + ["blkdebug:none.cfg:t.raw"],
    ]
    + [
        commands("read 0 512", "write 0 512", "write -z 0 512", "flush", "discard 0 512")
        + ["-t", "writeback", "--image-opts", f"{RAW_DEBUG},file.inject-error.0.event={event}"]
        for event in (
            "none",
            "read_aio",
            "write_aio",
            "pwritev",
            "pwritev_done",
            "pwritev_zero",
            "flush_to_os",
        )
    ]
    + [
        commands("read 0 512", "read 512 512", "write 0 512")
        + ["--image-opts", f"{RAW_DEBUG},file.inject-error.0.{more}"]
        for more in (
            "event=none,file.inject-error.0.errno=28",
            "event=none,file.inject-error.0.sector=1",
            "event=foo",
            "event=none,file.inject-error.0.iotype=bar",
            "event=none,file.inject-error.0.iotype=write",
            "event=none,file.inject-error.0.once=on",
            "event=none,file.inject-error.1.event=read_aio",
            "event=none,file.align=3",
            "event=none,file.align=4096",
            "event=none,file.align=4096,file.max-transfer=512",
            "errno=5",
            "event=none,file.nonsense=1",
        )
    ]
    + [
        commands(
            "write 0 64k",
            "break write_aio A",
            "aio_write 0 64k",
            "wait_break A",
            "length",
            "resume A",
            "aio_flush",
            "resume B",
            "remove_break A",
            "break nope B",
        )
        + ["--image-opts", QCOW2_DEBUG],
        commands(
            "write 0 64k",
            "break read_aio A",
            "aio_read 0 64k",
            "wait_break A",
            "write -P 5 64k 512",
            "resume A",
            "aio_flush",
            "break pwritev C",
            "remove_break C",
            "resume C",
            "write 0 512",
        )
        + ["--image-opts", QCOW2_DEBUG],
    ]
)


ROWS += [
    commands("read 0 512", "length") + ["blkverify:zero.raw"],
    commands("read 0 512") + ["blkverify:missing:t.raw"],
    commands("write -P 1 0 4k", "read -P 1 0 4k", "length") + ["blkverify:other.raw:t.qcow2"],
    commands(
        "open -o driver=raw,file.driver=blkverify,file.raw.filename=other.raw t.qcow2",
        "write -P 1 0 4k",
        "read -P 1 0 4k",
        "close",
        "open -o driver=blkverify,raw.filename=other.raw t.qcow2",
        "length",
        "close",
        "open -o driver=blkverify t.qcow2",
    ),
    commands("write -P 1 0 512", "length", "alloc 0 64k")
    + ["--image-opts", "driver=compress,file.driver=qcow2,file.file.filename=t.qcow2"],
    commands("length")
    + ["--image-opts", "driver=compress,file.driver=raw,file.file.filename=t.raw"],
]
LOG = (
    "driver=blklogwrites,file.driver=file,file.filename=t.raw,log.driver=file,log.filename=zero.raw"
)
ROWS += [
    commands("length") + ["--image-opts", f"{LOG},{more}"]
    for more in (
        "log-sector-size=1000",
        "log-append=on",
        "log-append=on,log-sector-size=512",
        "log-super-update-interval=0",
    )
]


def shown(row):
    text = " ".join(row)
    return text if len(text) < 60 else text[:57] + "..."


@pytest.mark.parametrize("words", ROWS, ids=shown)
def test_same_as_qemu_io(images, words):
    both(images, words, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("words", [["-x"], ["a", "b"], ["--nope"]])
def test_wrong_options_show_how(images, words):
    for program in (OURS, "qemu-io"):
        done = run(program, words)
        assert done.code == 1 and done.out.startswith(
            "Usage: qemu-io [OPTIONS]... [-c STRING]... [file]\n"
        )


@pytest.mark.parametrize(
    "text",
    ["length\n\n  read   0 512  -q\nfoo\nquit\nlength\n", "length", "", "quit\n", "read 0 1x\n"],
)
def test_commands_from_a_pipe(images, text):
    both(images, ["-f", "raw", "t.raw"], input=text)


def test_messages_on_standard_error(images):
    words = commands(
        "nope",
        "read",
        "alloc",
        "map 1",
        "write -x 0 1",
        "open",
        "truncate -m foo 1",
        "reopen -r -w",
        "reopen -o foo=bar",
        "open t.raw",
        "reopen -r",
        "write 0 1",
        "close",
        "length",
    ) + ["t.qcow2"]
    mine, theirs = both(images, words)
    assert mine.err == theirs.err


def test_a_single_rule_has_no_number(images):
    for rules in ("inject-error.event=l2_load", "set-state.event=l2_load,file.set-state.state=1"):
        opening = f"open -o file.driver=blkdebug,file.{rules} t.qcow2"
        both(images, commands("write 0 512", "close", opening, "read 0 512") + ["t.qcow2"])


def test_nothing_is_lost_where_nothing_was_written(images):
    """The flush of closing fails as well, but every request has been reported as failed."""
    for options, command in (
        (f"{RAW_DEBUG},file.inject-error.0.event=none", "write 0 64k"),
        (f"{QCOW2_DEBUG},file.inject-error.0.event=l2_load", "read 0 64k"),
    ):
        mine, theirs = both(images, commands(command) + ["--image-opts", options])
        assert mine.err == theirs.err


def test_help_of_commands_lists_its_options(images):
    for name in ("read", "write", "aio_write", "open", "reopen"):
        mine = run(OURS, ["-c", f"help {name}"])
        theirs = run("qemu-io", ["-c", f"help {name}"])
        assert mine.out.splitlines()[0] == theirs.out.splitlines()[0]

        def letters(text):
            return set(re.findall(r"^ -(\w), --", text, flags=re.M))

        assert letters(mine.out) >= letters(theirs.out) - {"p"}


def test_as_a_verb(images, cairn):
    done = cairn("io", "-c", "write -P 3 0 4k", "-c", "read -P 3 0 4k", "mine/t.qcow2")
    assert done.out.count("4 KiB, 1 ops") == 2
    assert (
        cairn("io", "-f", "raw", "mine/t.raw", input="length\n").out
        == "cairn io> 1 MiB\ncairn io> "
    )
    assert cairn("io", "-c", "read 0 1", ok=False).code == 1


def test_signals_end_the_program(images):
    for number in (signal.SIGTERM, signal.SIGKILL):
        done = run(
            OURS, commands("write 0 512", f"sigraise {int(number)}", "length") + ["mine/t.qcow2"]
        )
        assert done.code == -number and done.out.startswith("wrote 512/512")
    assert run(OURS, ["-c", "abort"]).code == -signal.SIGABRT


def test_copy_on_read_stores_what_is_below(images, qemu):
    os.chdir("mine")
    run("qemu-io", ["-f", "raw", "-c", "write -P 8 0 128k", "t.raw"])
    done = run(OURS, commands("read -P 8 100 1000", "alloc 0 128k") + ["-C", "over.qcow2"])
    assert done.code == 0 and "65536/131072 bytes allocated at offset 0 bytes" in done.out
    assert qemu("compare", "t.raw", "over.qcow2").code == 0


def test_throttle_group_keeps_the_rate(images):
    options = "driver=throttle,throttle-group=g,file.driver=raw,file.file.filename=mine/t.raw"
    begin = time.monotonic()
    done = run(
        OURS,
        commands("write 0 256k", "write 0 256k", "write 0 256k")
        + ["--object", "throttle-group,id=g,x-bps-total=1000000", "--image-opts", options],
    )
    seconds = time.monotonic() - begin
    assert done.code == 0, done.err
    # Two of them must have leaked but for the slack of 100 ms.
    assert 0.35 < seconds < 30
    wrong = run(OURS, ["-c", "length", "--image-opts", options])
    assert wrong.code == 1 and "Throttle group 'g' does not exist" in wrong.err


def log_entries(path):
    data = path.read_bytes()
    magic, version, count, sector = struct.unpack_from("<QQQI", data)
    assert (magic, version) == (0x6A736677736872, 1)
    at, entries = sector, []
    for _ in range(count):
        where, length, flags, _ = struct.unpack_from("<QQQQ", data, at)
        size = 0 if flags & 4 else length * sector
        if not flags & 1:
            entries.append((where, length, flags, data[at + sector : at + sector + size]))
        at += sector + size
    assert at == len(data)
    return entries


def test_log_of_writes_is_qemus(images):
    lines = commands(
        "write -P 1 0 512", "write -z 4k 4k", "discard 8k 4k", "flush", "write -P 7 16k 1k"
    )
    for append in ("", ",log-append=on"):
        both(images, lines + ["--image-opts", LOG + append])
        assert log_entries(images / "mine/zero.raw") == log_entries(images / "theirs/zero.raw")


def test_blkverify_tells_differences(images):
    run("qemu-io", ["-f", "raw", "-c", "write -P 5 1k 512", "mine/other.raw"])
    disk = "blkverify:mine/other.raw:mine/t.qcow2"
    for command in ("read 0 64k", "aio_read 0 64k"):
        lines = ["-f", "raw", "-c", command, "-c", "aio_flush", "-c", "read 0 512", disk]
        theirs, mine = run("qemu-io", lines), run(OURS, lines)
        assert (mine.code, mine.out, mine.err) == (theirs.code, theirs.out, theirs.err)
        assert "blkverify: read offset=0 bytes=65536 contents mismatch at offset 1024\n" == mine.err
        own = run(OURS.parent.parent / "cairn", ["io", *lines])
        assert own.code == 1 and mine.err in own.err and "512/512" in own.out


def test_results_of_requests_count_under_our_name(images):
    for command, code in (("aio_read -P 9 0 512", 1), ("aio_read -P 9 64k 512", 0)):
        lines = ["-f", "raw", "-c", "write -P 9 64k 512", "-c", command, "mine/t.raw"]
        assert run(OURS, lines).code == run("qemu-io", lines).code == 0
        assert run(OURS.parent.parent / "cairn", ["io", *lines]).code == code


def test_a_flush_that_fails(images):
    """qemu-io has no words for it; Cairn has, and reports a close that lost what was written."""
    rules = '"inject-error":[{"event":"none","iotype":"flush"}]'
    file = '{"driver":"file","filename":"mine/t.raw"}'
    disk = f'json:{{"driver":"raw","file":{{"driver":"blkdebug",{rules},"image":{file}}}}}'
    lines = ["-t", "writeback", "-c", "write -q 0 512"]
    theirs = run("qemu-io", [*lines, "-c", "flush", disk])
    mine = run(OURS, [*lines, "-c", "flush", disk])
    assert (mine.code, mine.out, mine.err) == (theirs.code, theirs.out, theirs.err) == (1, "", "")
    own = run(OURS.parent.parent / "cairn", ["io", *lines, "-c", "flush", disk])
    assert own.code == 1 and "flush failed: Input/output error" in own.out + own.err
    lost = run(OURS, [*lines, disk])
    assert (lost.code, lost.err) == (1, "qemu-io: Input/output error\n")


class Terminal:
    def __init__(self, *words):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="vt100", EDITRC="/dev/null")
            os.execv(OURS, ["qemu-io", *map(str, words)])
        self.text = ""

    def until(self, pattern, seconds=20):
        """Reads until PATTERN is there and consumes what it matched: the next wait is for something new."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.text)):
            assert time.monotonic() < end, self.text
            if select.select([self.fd], [], [], 0.2)[0]:
                try:
                    self.text += os.read(self.fd, 4096).decode(errors="replace")
                except OSError:  # the program is gone
                    assert re.search(pattern, self.text), self.text
        seen, self.text = self.text[: found.end()], self.text[found.end() :]
        return seen

    def answer(self, pattern):
        """What a command printed, a line of its own that matches PATTERN, and the prompt behind it."""
        seen = self.until(rf"(?m)^(.*\r)?({pattern})\r?$")
        return seen + self.until("qemu-io> ")

    def type(self, text):
        """Types when the editor has taken the terminal over, which it does a moment after it printed its prompt. What is typed
        earlier meets the kernel's own line editing, to which a Ctrl-D means something else."""
        end = time.monotonic() + 20
        while termios.tcgetattr(self.fd)[3] & termios.ICANON:
            assert time.monotonic() < end, self.text
            time.sleep(0.01)
        os.write(self.fd, text.encode())

    def code(self):
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return status


def test_on_a_terminal(images):
    shell = Terminal("-f", "raw", "mine/t.raw")
    shell.until("qemu-io> ")
    shell.type("length\r")
    shell.answer("1 MiB")
    shell.type("\x1b[A\r")  # the line before
    shell.answer("1 MiB")
    shell.type("leng\t\r")  # completed
    shell.answer("1 MiB")
    shell.type("xlength\x01\x1b[3~\x04\r")  # to the beginning, delete
    shell.answer('1 MiB|command ".*" not found')
    shell.type("\x04")  # the end of the input
    assert os.WIFEXITED(shell.code())


def test_ctrl_c_on_a_terminal(images):
    shell = Terminal("-f", "raw", "mine/t.raw")
    shell.until("qemu-io> ")
    shell.type("\x03")
    status = shell.code()
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGINT

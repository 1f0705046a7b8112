"""An iSCSI target of our own: copies that it makes by itself, and what it may do wrong."""
# Packages: libiscsi7
import json
import os
import random
import resource
import signal
import subprocess
import time

import pytest

from conftest import CAIRN, allow_leaks_of
from support.odd_iscsi import OddTarget, Unit

pytestmark = pytest.mark.any_engine
SIZE = 4 << 20
CONTENT = random.Random(5).randbytes(SIZE)


@pytest.fixture(autouse=True)
def libiscsi(folder, monkeypatch):
    """It loses what was under way when it connects again."""
    allow_leaks_of("libiscsi.so", folder, monkeypatch)


def convert(cairn, target, **more):
    return cairn("convert", "-f", "raw", "-O", "raw", target.url(), "out.raw", timeout=170, **more)


def test_content(folder, cairn):
    with OddTarget([Unit(1, SIZE, CONTENT), Unit(2, SIZE)]) as target:
        convert(cairn, target)
        assert (folder / "out.raw").read_bytes() == CONTENT
        cairn("convert", "-n", "-f", "raw", "-O", "raw", "out.raw", target.url(2))
        assert target.units[2].data == CONTENT


# What is answered, and what the copy comes to: right although the target is odd, or refused with these words.
ODD = {
    "short": "fewer bytes than it was asked for",
    "short in silence": "fewer bytes than it was asked for",
    "status alone": "fewer bytes than it was asked for",
    "long": "connections were lost with one and the same request",
    "elsewhere": "connections were lost with one and the same request",
    "past the buffer": "connections were lost with one and the same request",
    "rejects": "connections were lost with one and the same request",
    "unknown opcode": "connections were lost with one and the same request",
    "cuts": "connections were lost with one and the same request",
    "cuts once": None,
    "unknown tag": None,
    "twice": None,
    "asks to log out": None,
    "fails": "Input/output error",
    "shrinks": "at block 4096",
    "runs of nothing": None,
    "runs elsewhere": None,
    "runs past the end": None,
    "runs without end": None,
    "no end": "returned a size of 18446744073709551615 blocks",
    "past int64": "returned a size of 2305843009213693953 blocks",
    "blocks of 513": "invalid block size of 513",
    "blocks of 0": "invalid block size of 0",
    "blocks of 1 GiB": "invalid block size of 1073741824",
    "modes": None,
    "pages": None,
    "redirects": "Failed to connect to LUN",
    "login status": "Failed to connect to LUN",
    "endless login": "Failed to connect to LUN",
    "huge segments": None,
}


# The library waits between connections: twelve seconds each.
LONG = ("elsewhere", "past the buffer", "unknown opcode")


@pytest.mark.parametrize(
    "odd", [pytest.param(odd, marks=pytest.mark.slow if odd in LONG else ()) for odd in ODD]
)
def test_odd_answers(folder, cairn, odd):
    with OddTarget([Unit(1, SIZE, CONTENT)], odd) as target:
        done = convert(cairn, target, ok=False)
    if ODD[odd] is None:
        assert done.code == 0, done.err
        assert (folder / "out.raw").read_bytes() == CONTENT
    else:
        assert done.code == 1 and ODD[odd] in done.err and not (folder / "out.raw").exists()
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 2 << 20  # KiB


def test_a_busy_target_is_asked_again(folder, cairn):
    with OddTarget([Unit(1, SIZE, CONTENT)], busy={0x28: 2, 0x88: 2}) as target:
        convert(cairn, target)
    assert (folder / "out.raw").read_bytes() == CONTENT


@pytest.mark.parametrize("odd", ["no sense", "cut sense"])
def test_no_reason_given(folder, cairn, odd):
    """A command that is refused without sense data."""
    with OddTarget([Unit(1, SIZE, CONTENT)], odd) as target:
        failed = cairn("io", "-f", "raw", "-c", "write 0 4k", target.url(9), ok=False, timeout=100)
        assert failed.code == 1 and "iSCSI" in failed.err


def test_asked_for_more_than_there_is(folder, cairn):
    """The target wants bytes of a write that lie past its end."""
    (folder / "in.raw").write_bytes(CONTENT)
    with OddTarget([Unit(1, SIZE)], "asks too much") as target:
        failed = cairn(
            "convert", "-n", "-f", "raw", "-O", "raw", "in.raw", target.url(), ok=False, timeout=170
        )
        assert failed.code == 1 and bytes(target.units[1].data) == bytes(SIZE)


@pytest.mark.parametrize("odd", ["stalls", "cuts", "long"])
def test_interrupted(folder, odd):
    """Each of these would go on for a while."""
    with OddTarget([Unit(1, SIZE, CONTENT)], odd) as target:
        job = subprocess.Popen(
            [CAIRN, "convert", "-f", "raw", "-O", "raw", target.url(), "out.raw"],
            stderr=subprocess.DEVNULL,
            env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
        )
        until = time.monotonic() + 30
        while 0x28 not in target.seen and 0x88 not in target.seen:
            assert time.monotonic() < until
            time.sleep(0.02)
        begun = time.monotonic()
        job.send_signal(signal.SIGINT)
        assert job.wait(timeout=20) == 128 + signal.SIGINT and time.monotonic() - begun < 1.5
    assert not (folder / "out.raw").exists()


# --- copies by the target ---


def copy(cairn, target, *more, **options):
    return cairn(
        "convert",
        "-n",
        "-C",
        "-f",
        "raw",
        "-O",
        "raw",
        *more,
        target.url(1),
        target.url(2),
        **options,
    )


def test_the_target_copies(folder, cairn):
    """Without one byte of it coming here."""
    content = CONTENT * 3
    with OddTarget([Unit(1, len(content), content), Unit(2, len(content))]) as target:
        copy(cairn, target)
        assert target.units[2].data == content and target.copied == len(content)
        assert 0x2A not in target.seen


@pytest.mark.parametrize("odd", ["no copies", "copy fails", "no designators", "long designators"])
def test_the_target_does_not_copy(folder, cairn, odd):
    with OddTarget([Unit(1, SIZE, CONTENT), Unit(2, SIZE)], odd) as target:
        copy(cairn, target)
        assert target.units[2].data == CONTENT and target.copied == 0


def test_a_copy_into_a_part(folder, cairn):
    """A disk that begins further on in its unit."""
    with OddTarget([Unit(1, SIZE, CONTENT), Unit(2, 2 * SIZE)]) as target:
        image = "json:" + json.dumps(
            {
                "driver": "raw",
                "offset": SIZE,
                "size": SIZE,
                "file": {
                    "driver": "iscsi",
                    "transport": "tcp",
                    "portal": f"127.0.0.1:{target.port}",
                    "target": "iqn.2026-01.org.example:odd",
                    "lun": 2,
                },
            }
        )
        cairn("convert", "-n", "-C", "-f", "raw", "-O", "raw", target.url(1), image)
        assert target.units[2].data[SIZE:] == CONTENT and not any(target.units[2].data[:SIZE])

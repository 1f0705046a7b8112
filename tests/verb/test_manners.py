"""What Cairn's own name does for people, and QEMU's names do not."""
import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import termios
import time
from pathlib import Path

from conftest import CAIRN, TOP, call, sparse_disk
from plain_words import PLAIN

import pytest

pytestmark = pytest.mark.any_engine

MIB = 1 << 20


def test_options_are_named_in_whole(folder, cairn, ours):
    sparse_disk("a.raw", MIB)
    for words, meant in (
        (["convert", "--force", "a.raw", "t.raw"], "--force-share"),
        (["info", "--outptu=json", "a.raw"], "--output"),
        (["compare", "--strcit", "a.raw", "a.raw"], "--strict"),
        (["compare", "--progres", "a.raw", "a.raw"], "--progress"),
    ):
        done = cairn(*words, ok=False)
        assert done.code == 1
        option = words[1].split("=")[0]
        assert f"unrecognized option '{words[1]}'; did you mean '{meant}'?" in done.err, (
            option,
            done.err,
        )
    done = cairn("info", "--qqqq", "a.raw", ok=False)
    assert done.code == 1 and "did you mean" not in done.err
    assert ours("convert", "--force", "a.raw", "t.raw").code == 0


def test_vhd_keeps_the_size(folder, cairn, ours):
    size = 10 * MIB
    sparse_disk("a.raw", size)
    done = cairn("convert", "a.raw", "a.vhd")
    assert done.err == "" and cairn("info", "--output=json", "a.vhd").json()["virtual-size"] == size
    done = ours("convert", "-O", "vpc", "a.raw", "b.vhd")
    grown = ours("info", "--output=json", "-f", "vpc", "b.vhd").json()["virtual-size"]
    assert grown > size and done.err.count("\n") == 1
    assert (
        f"warning: the VHD disk grows from {size} to {grown} bytes" in done.err
        and "force_size=on" in done.err
    )
    assert cairn("create", "-q", "-o", "force_size=off", "c.vhd", "10M").err.count("warning") == 1
    assert cairn("info", "--output=json", "c.vhd").json()["virtual-size"] == grown
    # A size that is a geometry already does not change.
    assert ours("create", "-q", "-f", "vpc", "d.vhd", str(grown)).err == ""


def verbs_of(cairn):
    return re.findall(r"^  ([a-z]+) +\S", cairn("help").out, re.M)


def test_help_is_wrapped_grouped_and_complete(folder, cairn):
    for verb in verbs_of(cairn):
        shown = cairn(verb, "--help").out
        assert shown == cairn("help", verb).out
        assert max(map(len, shown.splitlines())) <= 80, verb
        assert shown.startswith(f"cairn {verb}: ") and f"\nUsage: cairn {verb} " in shown
        usage = shown.split("\nUsage: ")[1].split("\n\n")[0]
        for line in usage.splitlines():  # an option and its value stay together
            assert line.count("[") == line.count("]"), (verb, line)
        for heading in ("\nExample: cairn " + verb, "\nOutput:\n", "--help"):
            assert heading in shown, (verb, heading)
    assert max(map(len, cairn("help").out.splitlines())) <= 80
    assert (
        "\nOpening images:\n" in cairn("help", "convert").out
        and "--verify" in cairn("help", "convert").out
    )


def test_help_promises_a_sandbox_where_there_is_one(cairn):
    page = (TOP / "docs/security.md").read_text()
    line = next(line for line in page.splitlines() if line.startswith("- `--untrusted` runs"))
    told = {
        verb
        for verb in verbs_of(cairn)
        if "sandbox" in cairn("help", verb).out.split("--untrusted")[-1].split("\n\n")[0]
    }
    assert told == set(re.findall(r"`([a-z]+)`", line))


def test_help_of_io_and_nbd_names_what_the_programs_know(cairn):
    """Those whose names are shortened under QEMU's name are none under ours, and --key-file is in the help."""
    for verb, option in (("io", "--read-onl"), ("nbd", "--allocation")):
        shown = cairn("help", verb).out
        assert "--key-file FILE" in shown and "\nOpening images:\n" in shown
        done = cairn(verb, option, "a.raw", ok=False)
        assert done.code == 1 and f"unrecognized option '{option}'; did you mean" in done.err
        done = call(CAIRN.parent / "compat" / f"qemu-{verb}", option, "--version")
        assert "Cairn" in done.out


def test_help_of_every_command_of_io(folder, cairn):
    listed = cairn("io", "-c", "help").out
    assert "\nImage:\n" in listed and max(map(len, listed.splitlines())) <= 80
    commands = re.findall(r"^  (\w+)", listed, re.M)
    assert (
        "command \"raed\" not found; did you mean 'read'?"
        in cairn("io", "-c", "raed 0 1", ok=False).err
    )
    assert {"read", "aio_flush", "open", "zone_reset"} <= set(commands)
    for command in commands:
        shown = cairn("io", "-c", f"help {command}").out
        assert (
            shown.startswith(f"{command}: ")
            and f"\nExample: {command}" in shown
            and f"\nUsage: {command}" in shown
        )
        assert max(map(len, shown.splitlines())) <= 80, command
        assert not PLAIN.findall(shown), (command, PLAIN.findall(shown))


def test_sizes_of_io_and_of_budgets(folder, cairn):
    cairn("create", "-q", "a.qcow2", "20GB")
    done = cairn(
        "io", "-c", "write -P 7 10GB 64KiB", "-c", "read -P 7 9765625k 0.0625MiB", "a.qcow2"
    )
    assert "wrote 65536/65536 bytes at offset 10000000000" in done.out and "failed" not in done.out
    link = CAIRN.parent / "compat" / "qemu-io"
    assert "extraneous" in call(link, "-c", "read 10GB 64k", "a.qcow2", ok=False).out
    assert cairn("info", "--untrusted", "--budget", "memory=1GiB,output=10GB", "a.qcow2").err == ""
    assert (
        "at least 64M"
        in cairn("info", "--untrusted", "--budget", "memory=10MB", "a.qcow2", ok=False).err
    )


def test_help_fits_the_terminal(folder):
    for columns, most in ((60, 60), (200, 120), (20, 50)):
        leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        with subprocess.Popen([CAIRN, "convert", "--help"], stdout=follower) as done:
            os.close(follower)
            text = b""
            while True:
                try:
                    piece = os.read(leader, 65536)
                except OSError:
                    break
                if not piece:
                    break
                text += piece
        os.close(leader)
        lines = text.decode().splitlines()
        longest = max(
            len(line)
            for line in lines
            if " " in line.strip() and not line.startswith(("Example:", "  -", "      --"))
        )
        assert most - 15 < longest <= most, (columns, longest)


def test_examples_of_the_help_work(folder, cairn):
    for verb in verbs_of(cairn):
        found = re.search(r"^Example: cairn (.*)$", cairn("help", verb).out, re.M)
        if found is None or verb in ("ctl", "daemon", "mount", "nbd", "serve", "umount"):
            continue
        fresh = Path(verb)
        fresh.mkdir()
        sparse_disk(fresh / "disk.raw", 8 * MIB)
        cairn("convert", "-q", "disk.raw", "disk.qcow2", cwd=fresh)
        cairn("create", "-q", "-b", "disk.qcow2", "-F", "qcow2", "overlay.qcow2", cwd=fresh)
        if verb == "restore":
            cairn("backup", "disk.qcow2", "backups", cwd=fresh)
        cairn(*shlex.split(found[1]), cwd=fresh)


def test_wrong_names_get_a_guess(folder, cairn, ours):
    sparse_disk("a.raw", MIB)
    for words, meant in (
        (["covnert"], "convert"),
        (["inf"], "info"),
        (["help", "snapshto"], "snapshot"),
        (["create", "-f", "qocw2", "x", "1M"], "qcow2"),
        (["convert", "-O", "vhdxx", "a.raw", "x"], "vhdx"),
        (["info", "-f", "qcw2", "a.raw"], "qcow2"),
        (["measure", "-O", "paralels", "a.raw"], "parallels"),
        (["io", "--snap", "a.raw"], "--snapshot"),
        (["nbd", "--lits"], "--list"),
        (["formats", "vdii"], "vdi"),
        (["dd", "-O", "vmkd", "if=a.raw", "of=x"], "vmdk"),
    ):
        done = cairn(*words, ok=False)
        assert done.code == 1
        assert f"; did you mean '{meant}'?" in done.err, (words, done.err)
    assert (
        "did you mean"
        not in ours("covnert", ok=False).err + ours("info", "-f", "qcw2", "a.raw", ok=False).err
    )
    assert not os.path.exists("x")


def test_wrong_usage_names_the_help_of_the_verb(folder, cairn, ours):
    for words, where in (
        (["info"], "cairn info"),
        (["convert", "--nope"], "cairn convert"),
        (["nope"], "cairn"),
        (["--nope"], "cairn"),
        (["io", "a", "b"], "cairn io"),
        (["nbd", "--port"], "cairn nbd"),
    ):
        done = cairn(*words, ok=False)
        assert done.code == 1 and done.err.endswith(f"Try '{where} --help' for more information\n")
    assert ours("info", ok=False).err.endswith("Try 'qemu-img --help' for more information\n")


def test_sizes_in_both_kinds_of_units(folder, cairn, ours):
    for text, size in (
        ("1GB", 10**9),
        ("1GiB", 2**30),
        ("1G", 2**30),
        ("1.5KiB", 1536),
        ("1.5KB", 1500),
        ("2kb", 2000),
        ("20MB", 20 * 10**6),
        ("0.5MiB", 2**19),
        ("1.25mib", 5 * 2**18),
        ("512b", 512),
        ("0x200", 512),
    ):
        cairn("create", "-q", "-f", "raw", "s.raw", text)
        assert os.path.getsize("s.raw") == -(-size // 512) * 512, text
        os.unlink("s.raw")
    cairn("create", "-q", "-o", "cluster_size=16KiB", "c.qcow2", "1MB")
    info = cairn("info", "--output=json", "c.qcow2").json()
    assert info["cluster-size"] == 16384 and info["virtual-size"] == -(-(10**6) // 512) * 512
    cairn("resize", "c.qcow2", "+1MiB")
    assert cairn("measure", "--size", "1GB", "--output=json").json()["required"] == 10**9
    for wrong in ("1XB", "B", "GB", "1..5GB", "1.0001kB", "99999999999EB", "1iB", "--1GB"):
        done = cairn("create", "-q", "-f", "raw", "w.raw", wrong, ok=False)
        assert done.code == 1 and not os.path.exists("w.raw"), wrong
    assert ours("create", "-q", "-f", "raw", "w.raw", "1GB", ok=False).code == 1


def test_compact_keeps_a_file_that_does_not_get_smaller(folder, cairn):
    sparse_disk("a.raw", 8 * MIB)
    cairn("convert", "-q", "a.raw", "a.qcow2")
    cairn("compact", "-q", "a.qcow2")
    before = os.stat("a.qcow2")
    assert "the old file was kept" in cairn("compact", "a.qcow2").out
    assert os.stat("a.qcow2").st_ino == before.st_ino and sorted(os.listdir()) == [
        "a.qcow2",
        "a.raw",
    ]
    cairn("compact", "-q", "-o", "cluster_size=128k", "a.qcow2")
    assert os.stat("a.qcow2").st_ino != before.st_ino
    cairn("compare", "a.raw", "a.qcow2")


def test_serving_to_everybody_is_warned_of(folder, cairn):
    sparse_disk("a.raw", MIB)
    for words, told in (
        (["-b", "0.0.0.0"], True),
        (["-b", "127.0.0.1"], False),
        (["-k", "sock"], False),
        (["-b", "0.0.0.0", "-q"], False),
    ):
        with subprocess.Popen(
            [
                CAIRN,
                "serve",
                *words,
                *([] if "-k" in words else ["-p", "0"]),
                "--pid-file",
                "ready",
                "-f",
                "raw",
                "a.raw",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as server:
            for _ in range(200):
                if os.path.exists("ready"):
                    break
                time.sleep(0.05)
            server.terminate()
            err = server.communicate(timeout=20)[1]
        assert ("without TLS" in err) == told, (words, err)
        if os.path.exists("ready"):
            os.unlink("ready")

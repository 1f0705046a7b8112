"""Command lines of qemu-img, qemu-io and qemu-nbd, run by both programs in directories that are equal: output, messages,
exit codes and images must be the same. test_cli_parity.py has the lines of qemu-img by verb; this table has what crosses
verbs, and the two other tools. A difference that stays has a row in ALLOWED with its reason."""
import re
import shlex
import shutil
import subprocess

import pytest

import differential_lines as more
from test_cli_parity import LINES as VERBS
from test_cli_parity import OURS, compare_images, digests, plain, pristine  # noqa: F401

pytestmark = [pytest.mark.any_engine, pytest.mark.slow]

READ = [
    "read 0 64k",
    "read -P 65 0 64k",
    "read -P 66 0 64k",
    "read -q 0 64k",
    "read -C 0 64k",
    "read -v 0 64",
    "read -v 196600 32",
    "read -s 512 -l 512 -P 65 0 4k",
    "read -s 4k -P 65 0 64k",
    "read -b 0 64k",
    "read -p 0 64k",
    "read 0 1",
    "read 1 1",
    "read 0 512",
    "read 100 1000",
    "read 0",
    "read",
    "read x 64k",
    "read 0 x",
    "read 0 -1",
    "read -1 1",
    "read 1M 64k",
    "read 1023k 2k",
    "read 0 3G",
    "read -z 0 64k",
    "read -P x 0 64k",
    "read -P 256 0 64k",
    "readv 0 64k",
    "readv -P 65 0 32k 32k",
    "readv -v 0 16 16",
    "readv -q 0 4k 4k",
    "readv 0",
    "readv",
    "readv 0 x",
    "aio_read 0 64k",
    "aio_read -P 65 0 64k",
    "aio_read -q 0 64k",
    "aio_read -P 66 0 64k",
    "aio_read 0",
    "aio_read -v 0 32",
]
WRITE = [
    "write 0 64k",
    "write -P 7 0 64k",
    "write -P 7 100 1000",
    "write -q 0 64k",
    "write -z 0 64k",
    "write -z -u 0 64k",
    "write -u 0 64k",
    "write -f 0 64k",
    "write -fq 0 4k",
    "write -c 0 64k",
    "write -c -P 1 0 64k",
    "write -z -c 0 64k",
    "write -z -P 1 0 64k",
    "write -s missing 0 64k",
    "write -s odd.raw 0 64k",
    "write -s empty 0 64k",
    "write -b 0 64k",
    "write -n 0 64k",
    "write -z -n 0 64k",
    "write 0",
    "write",
    "write x 1",
    "write 0 x",
    "write 0 0",
    "write 1M 1",
    "write 1023k 2k",
    "write -P 999 0 4k",
    "write -P -1 0 4k",
    "write -p 0 64k",
    "writev 0 64k",
    "writev -P 3 0 4k 4k",
    "writev -f 0 4k",
    "writev -q 0 4k",
    "writev 0",
    "writev",
    "aio_write 0 64k",
    "aio_write -P 4 64k 64k",
    "aio_write -z 0 64k",
    "aio_write -z -u 0 64k",
    "aio_write -u 0 64k",
    "aio_write -P 1 -z 0 64k",
    "aio_write -q 0 64k",
    "aio_write 0",
    "discard 0 64k",
    "discard 0 1M",
    "discard -q 0 64k",
    "discard -C 0 64k",
    "discard 1 1",
    "discard 0 2M",
    "discard",
    "discard 0",
    "flush",
    "flush x",
    "aio_flush",
    "truncate 2M",
    "truncate 512k",
    "truncate x",
    "truncate",
    "truncate -m off 2M",
    "truncate -m nope 2M",
    "truncate -m metadata 2M",
]
OTHER = [
    "help",
    "help read",
    "help write",
    "help nope",
    "help reopen",
    "nope",
    "",
    "length",
    "length x",
    "info",
    "info x",
    "map",
    "map x",
    "alloc 0",
    "alloc 0 64k",
    "alloc 64k 64k",
    "alloc 0 1M",
    "alloc 960k 128k",
    "alloc x",
    "alloc 0 x",
    "alloc",
    "alloc -1",
    "alloc 2M",
    "quit",
    "q",
    "open",
    "open missing",
    "open base.raw",
    "close",
    "reopen",
    "reopen -r",
    "reopen -w",
    "reopen -c none",
    "reopen -c nope",
    "reopen -o nope=1",
    "sleep 1",
    "sleep x",
    "sigraise x",
    "resume x",
    "remove_break x",
    "break a b",
    "abort x",
    "sigraise",
    "sleep",
    "break",
]
# Program, words, whether the image may change.
OPTIONS = [
    "",
    "missing",
    "base.raw",
    "-c",
    "-c length",
    "-c length base.raw",
    "-c length base.qcow2 base.raw",
    "-r -c 'write 0 4k' base.qcow2",
    "-s -c 'write 0 64k' base.qcow2",
    "-n -c length base.qcow2",
    "-k -c length base.qcow2",
    "-x -c length base.qcow2",
    "-t nope -c length base.qcow2",
    "-t none -c length base.qcow2",
    "-d nope -c length base.qcow2",
    "-d unmap -c 'discard 0 64k' base.qcow2",
    "-d ignore -c 'discard 0 64k' base.qcow2",
    "-i nope -c length base.qcow2",
    "-f nope -c length base.qcow2",
    "-f raw -c length base.qcow2",
    "-f qcow2 -c length base.raw",
    "--image-opts -c length driver=qcow2,file.filename=base.qcow2",
    "--image-opts -c length base.qcow2",
    "--image-opts -f raw -c length driver=raw,file.filename=base.raw",
    "-U -c length base.qcow2",
    "-U -r -c length base.qcow2",
    "-C -c length top.qcow2",
    "-C -r -c length top.qcow2",
    "--object secret,data=x -c length base.qcow2",
    "--object nope,id=x -c length base.qcow2",
    "--nope",
    "-c 'read 0 4k' -c 'read 4k 4k' base.qcow2",
    "-c nope -c length base.qcow2",
    "-c quit -c length base.qcow2",
    "-c 'read 0 4k' lost.qcow2",
    "-c length empty",
    "-c length nope:x",
    "-c length l.luks",
    "-c length enc.qcow2",
]
NBD = [
    "--version",
    "-V",
    "",
    "missing",
    "--nope",
    "-b",
    "-p x base.raw",
    "-o x base.raw",
    "-f nope base.raw",
    "--cache=nope base.raw",
    "--aio=nope base.raw",
    "--discard=nope base.raw",
    "--detect-zeroes=nope base.raw",
    "-n --cache=none -k /nowhere/s base.raw",
    "-e x base.raw",
    "-e -1 base.raw",
    "-P 1 base.raw",
    "-L -p 1",
    "-L base.raw -p 1",
    "-L -k /nowhere/s",
    "-L -f raw",
    "--image-opts base.raw",
    "-l nope base.raw",
    "-l snapshot.id=9 base.raw",
    "-s -l one snap.qcow2",
    "--tls-creds=x base.raw",
    "--tls-authz=x -k /nowhere/s base.raw",
    "--object nope,id=x base.raw",
    "--object secret base.raw",
    "--pid-file=/nowhere/p -k s base.raw",
    "-k relative base.raw",
    "-x '' -k /nowhere/s base.raw",
    "-B nope -t -k /proc/self/cwd/../none base.raw",
    "-f qcow2 base.raw",
    "base.raw base.qcow2",
    "-v missing",
    "-t missing",
    "lost.qcow2",
]
IMG = [
    "-- info base.raw",
    "-- ",
    "-- nope",
    "measure -O qcow2 -o compat=0.10,lazy_refcounts=on --size 1M",
    "measure -O qcow2 -o compat=v2 --size 1M",
    "measure -O qcow2 -o compat=v3 --size 1M",
    "measure -O qcow2 -o compat=1.1 --size 1M",
    "measure -f raw -O qcow2 base.qcow2",
    "measure -f raw -O raw bm.qcow2",
    "measure -O qcow2 df.qcow2",
    "measure -O raw df.qcow2",
    "map df.qcow2",
    "map --output=json df.qcow2",
    "map -f raw --output=json base.qcow2",
    "map -f raw base.raw",
    "info file:base.qcow2",
    "info --output=json file:base.raw",
    "info file:./base.qcow2",
    "create -f qcow2 file:a:b 1M",
    "create -f qcow -b base.raw -F nope new 1M",
    "create -f qcow -u -b base.raw -F nope new 1M",
    "create -f vmdk -u -b base.raw -F nope new 1M",
    "create -f vmdk -u -b base.raw -F raw new 1M",
    "create -f qcow2 -u -b base.raw -F nope new 1M",
    "convert -p -O raw empty out",
    "amend -p -o compat=0.10 snap.qcow2",
    "amend -p -o compat=0.10 base.qcow2",
    "convert -S 8k -O qcow2 base.raw out",
    "convert -S 64k -O qcow2 base.raw out",
    "convert -S 0 -O qcow2 base.raw out",
    "convert -S 512 -O raw base.raw out",
    "convert -n -O qcow2 base.raw top.qcow2",
    "convert -n -O vdi base.raw a.vdi",
    "convert -n -O vhdx base.raw a.vhdx",
    "convert -n -O vmdk base.raw a.vmdk",
    "convert -n -t unsafe -O qcow2 base.raw snap.qcow2",
    "convert -o help base.raw x.vmdk",
    "convert -O vmdk -o help base.raw x.vmdk",
    "convert -l snapshot.name=one -O raw snap.qcow2 out",
    "convert -l snapshot.id=2 -O raw snap.qcow2 out",
    "convert -l snapshot.nope=one -O raw snap.qcow2 out",
    "convert -l snapshot.id= -O raw snap.qcow2 out",
    "snapshot -c '' snap.qcow2",
    "snapshot -d '' snap.qcow2",
]
TABLE = {
    "qemu-img": {"": IMG},
    "qemu-io": {
        "options": OPTIONS,
        **{
            f"{what} {fmt}": [
                f"-f {fmt} -c {shlex.quote(command)} base.{fmt}" for command in commands
            ]
            for what, commands in {"read": READ, "write": WRITE}.items()
            for fmt in ("raw", "qcow2")
        },
        "other": [f"-f qcow2 -c {shlex.quote(command)} top.qcow2" for command in OTHER],
    },
    "qemu-nbd": {"": NBD, "more": more.NBD},
}
TABLE["qemu-img"]["formats"] = more.IMG
TABLE["qemu-io"]["more"] = more.IO
COUNT = sum(map(len, VERBS.values())) + sum(
    len(lines) for groups in TABLE.values() for lines in groups.values()
)
# What stays different, and why.
USAGE = "the usage text is our own"
ALLOWED = {
    **{
        ("qemu-io", line): USAGE
        for line in ("-c", "-c length base.qcow2 base.raw", "-x -c length base.qcow2", "--nope")
    },
    **{
        ("qemu-io", f"-f qcow2 -c '{command}' top.qcow2"): USAGE
        for command in ("help read", "help write", "help reopen")
    },
}


def words_only(text):
    """Also without speeds and addresses of memory, which differ from run to run, and with one name for the program."""
    for pattern, instead in (
        (r"\([\d.]+ \w+/sec and [\d.]+ ops/sec\)", "(SPEED)"),
        (r"(?m)^(\d+,\d+),[\d:.]+,[\d.]+,[\d.]+$", r"\1"),
        (r"\d+ ops; [\d:.]+( sec)?", "OPS"),
        (r"(?m)^(/\S*/)?(qemu-\w+)( \w+)?: ", r"\2: "),
    ):
        text = re.sub(pattern, instead, text)
    return plain(text)


def test_the_tables_are_long_enough():
    assert COUNT >= 1000


@pytest.mark.parametrize(
    "program,group", [(program, group) for program, groups in TABLE.items() for group in groups]
)
def test_as_the_tool(pristine, tmp_path, program, group):  # noqa: F811
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    clean = digests(pristine)

    def fresh():
        for directory in (mine, theirs):
            shutil.rmtree(directory, ignore_errors=True)
            subprocess.run(["cp", "-a", "--reflink=auto", pristine, directory], check=True)

    fresh()
    wrong = []
    for line in TABLE[program][group]:
        results = []
        for executable, directory in ((OURS / program, mine), (f"/usr/bin/{program}", theirs)):
            done = subprocess.run(
                [program, *shlex.split(line)],
                executable=executable,
                cwd=directory,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                timeout=30,
            )
            results.append(
                (
                    done.returncode,
                    words_only(done.stdout.decode(errors="replace")),
                    words_only(done.stderr.decode(errors="replace")),
                )
            )
        if program == "qemu-nbd" and line in ("--version", "-V"):
            results = [(code, bool(out), err) for code, out, err in results]
        problem = results if results[0] != results[1] else None
        ours, other = digests(mine), digests(theirs)
        if ours != clean or other != clean:
            try:
                # What could not be made is removed.
                assert ours.keys() == other.keys() or (
                    results[0][0] == 1 and not ours.keys() - other.keys()
                ), (ours.keys() ^ other.keys())
                for name in ours.keys() & other.keys():
                    if ours[name] != other[name]:
                        compare_images(name, mine, theirs)
            except AssertionError as error:
                problem = problem or str(error)[:600]
            fresh()
        allowed = (program, line) in ALLOWED
        if problem and not allowed:
            wrong.append((f"{program} {line}", problem))
        elif allowed and not problem:
            wrong.append((f"{program} {line}", "is on the list of differences and has none"))
    assert not wrong, "\n".join(f"{line}\n  {problem}" for line, problem in wrong)

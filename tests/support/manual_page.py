"""Example lines of qemu-block-drivers(7), run by our tools: a line for the emulator becomes one for qemu-img and one for qemu-io with the
same disks and options."""
import shlex
import subprocess
from dataclasses import dataclass, field

from conftest import CAIRN, call

COMPAT = CAIRN.parent / "compat"
# Options of the emulator that are about the machine.
MACHINE = {"-boot": 1}


@dataclass
class Machine:
    """What a line for the emulator says about disks."""

    options: list = field(default_factory=list)  # -iscsi and -readconfig
    disks: list = field(default_factory=list)  # (words that name it, more options, is it a CD)


def replaced(line, changes):
    """LINE, in which hosts, ports and paths are those of the test."""
    for old, new in changes.items():
        assert old in line, (old, line)
        line = line.replace(old, str(new))
    return line


def drive(value):
    """The words for what -drive VALUE names, and the options with which a shell's `open` adds them to a name."""
    if not value.startswith("file="):
        return ["--image-opts", value], ""
    name, _, options = value[len("file=") :].partition(",")
    return [name], options


def machine(line):
    program, *words = shlex.split(line.replace("\\\n", " "))
    assert program == "qemu-system-x86_64"
    found, words = Machine(), iter(words)
    for word in words:
        if word in ("-iscsi", "-readconfig"):
            found.options += [word, next(words)]
        elif word in ("-hda", "-hdb", "-cdrom"):
            found.disks.append(([next(words)], "", word == "-cdrom"))
        elif word == "-drive":
            found.disks.append((*drive(next(words)), False))
        elif word in MACHINE:
            next(words)
        else:
            assert not word.startswith("-"), word
            found.disks.append(([word], "", False))
    return found


def run_machine(line, byte, size="4 MiB", prefix=(), own=True, **more):
    """Opens each disk of LINE and reads its first sector, which has only BYTE; with the names of QEMU's tools and, with OWN, with ours."""
    found = machine(line)
    assert found.disks
    for disk, more_options, cd in found.disks:
        read = ["-c", f"read -P {byte} 0 512"]
        if more_options:
            read = ["-c", f"open -o {more_options} {disk[0]}", *read]
        else:
            read = [*(["-r"] if cd else []), *read, *disk]
        for tool, words in [
            (COMPAT / "qemu-img", [*found.options, "info", *disk]),
            (COMPAT / "qemu-io", [*found.options, *read]),
            (CAIRN, [*found.options, "info", *disk]),
            (CAIRN, [*found.options, "io", *read]),
        ][: 4 if own else 2]:
            said = called(prefix, tool, *words, **more)
            assert ("virtual size: " + size if "info" in words else "512/512") in said.out, words
            assert "verification failed" not in said.out, words


def called(prefix, tool, *words, **more):
    return call(*prefix, tool, *words, **more) if prefix else call(tool, *words, **more)


def run_tool(line, prefix=(), **more):
    """A line for one of QEMU's tools, run by ours of its name."""
    program, *words = shlex.split(line)
    return called(prefix, COMPAT / program, *words, **more)


def start_tool(line):
    program, *words = shlex.split(line)
    return subprocess.Popen(
        [COMPAT / program, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )

"""A person at the console: wine shows one in a terminal."""
import os
import pty
import re
import select
import termios
import time

import pytest

from conftest import sparse_disk
from wine import ENVIRONMENT, EXE, linux, prepare

pytestmark = [pytest.mark.any_engine, pytest.mark.slow]
QUICK = "iter-time=10"
PASSPHRASE = "correct hörse €"
CTRL_C = b"\x03"


class Console:
    """A program of Windows at a terminal; wine draws what it prints."""

    def __init__(self, *words):
        prepare()
        child, self.terminal = pty.fork()
        if child == 0:
            os.execvpe(
                "wine",
                ["wine", *map(str, words)],
                {**ENVIRONMENT, "TERM": "xterm", "COLUMNS": "200"},
            )
        self.child = child
        self.seen = ""

    def more(self, seconds):
        if not select.select([self.terminal], [], [], seconds)[0]:
            return False
        try:
            drawn = os.read(self.terminal, 4096).decode(errors="replace")
        except OSError:
            return False
        # Without blanks, which are drawn by moving on.
        self.seen += re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]|\s+", "", drawn)
        return drawn != ""

    def wait_for(self, text):
        end = time.monotonic() + 40
        while text.replace(" ", "") not in self.seen:
            assert time.monotonic() < end, self.seen
            self.more(1)

    def answer(self, question, text):
        self.wait_for(question)
        # Wine makes the terminal silent when the program first reads.
        while termios.tcgetattr(self.terminal)[3] & termios.ECHO:
            time.sleep(0.02)
        self.seen = ""
        os.write(self.terminal, text if isinstance(text, bytes) else text.encode() + b"\r")

    def end(self):
        while self.more(40):
            pass
        os.close(self.terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self.child, 0)[1])


def encrypted(top):
    sparse_disk(top / "disk.raw", 1 << 20)
    (top / "key").write_text(PASSPHRASE)
    secret = ("--object", "secret,id=k,file=key", "-o", f"{QUICK},key-secret=k")
    linux("convert", "-q", "-O", "luks", *secret, "disk.raw", "a.luks", cwd=top)


def test_passphrases_are_asked_for_and_not_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    encrypted(tmp_path)
    console = Console(EXE, "compare", "a.luks", "disk.raw")
    console.answer("Passphrase for a.luks:", PASSPHRASE)
    assert console.end() == 0, console.seen
    assert "identical" in console.seen and "rse" not in console.seen, console.seen
    new = (EXE, "convert", "-q", "-O", "luks", "-o", QUICK, "disk.raw", "b.luks")
    console = Console(*new)
    console.answer("New passphrase for b.luks:", "one")
    console.answer("Once more:", "two")
    assert console.end() == 1 and "notthesame" in console.seen, console.seen
    console = Console(*new, "--overwrite")
    console.answer("New passphrase for b.luks:", PASSPHRASE)
    console.answer("Once more:", PASSPHRASE)
    assert console.end() == 0, console.seen
    opened = "driver=luks,key-secret=k,file.filename=b.luks"
    plain = "driver=raw,file.filename=disk.raw"
    key = ("--object", "secret,id=k,file=key")
    linux("compare", *key, "--image-opts", opened, plain, cwd=tmp_path)


def test_an_interrupt_ends_the_question(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    encrypted(tmp_path)
    console = Console(EXE, "compare", "a.luks", "disk.raw")
    console.answer("Passphrase for a.luks:", b"never" + CTRL_C)
    assert console.end() == 130 and "cancelled" in console.seen, console.seen
    assert "never" not in console.seen, console.seen


def test_unit_tests_at_a_console():
    console = Console(
        EXE.with_name("platform_tests.exe"), "--gtest_filter=Console.*", "--gtest_color=no"
    )
    assert console.end() == 0 and "[PASSED]2tests" in console.seen, console.seen

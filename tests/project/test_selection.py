"""What `./test` runs when it is given names, directories and files."""
import subprocess

import pytest

from conftest import TOP
from run import QUICK, Selection

pytestmark = pytest.mark.any_engine


def test_everything():
    chosen = Selection([])
    assert chosen.all() and chosen.units and chosen.programs
    assert (chosen.unit_filter(), chosen.program_words(["tests"])) == ("**", ["tests"])


def test_names():
    # The last two are directories, but not of tests.
    for word in ("Crash", "test_io", "docs", "src"):
        chosen = Selection([word])
        assert not chosen.all() and chosen.units and chosen.programs
        assert (chosen.unit_filter(), chosen.program_words(QUICK)) == (
            f"*{word}*",
            ["tests", "-k", word],
        )


def test_directories_and_files():
    chosen = Selection(["tests/nbd"])
    assert (
        chosen.programs
        and not chosen.units
        and chosen.program_words(["tests"]) == [str(TOP / "tests/nbd")]
    )
    chosen = Selection(["tests/format/ova"])
    assert chosen.programs and "Ova.Manifests" in chosen.unit_filter().split(":")
    chosen = Selection(["tests/crash/commit_test.cc"])
    assert (
        chosen.units
        and not chosen.programs
        and "*/CommitCrash.TheGuestSeesTheSameAtEveryMoment/*" in chosen.unit_filter().split(":")
    )
    chosen = Selection(["tests/net", "tests/verb/test_io.py"])
    assert chosen.units and chosen.program_words([]) == [
        str(TOP / "tests/net"),
        str(TOP / "tests/verb/test_io.py"),
    ]


@pytest.mark.parametrize(
    "words, message",
    [(["tests/support"], "There are no tests in"), (["tests/nbd", "io"], "Give either")],
)
def test_what_makes_no_sense_is_refused(words, message):
    with pytest.raises(SystemExit, match=message):
        Selection(words)


def test_quick_names_files():
    assert all((TOP / name).exists() for name in QUICK)


def test_help():
    done = subprocess.run([TOP / "test", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "./test --quick" in done.stdout and "set -u" not in done.stdout

"""Messages, help and pages in plain technical English: docs/terms.md has the words that are used instead of these."""
import os
import re

import pytest

from conftest import TOP, small_file_system, sparse_disk
from plain_words import NOT_PLAIN, PLAIN, TOKEN, messages

pytestmark = pytest.mark.any_engine


def words(text):
    return [match[0] for match in NOT_PLAIN.finditer(text)]


@pytest.mark.parametrize(
    "room", sorted(path.name for path in (TOP / "src").iterdir() if path.is_dir())
)
def test_messages(room):
    wrong = [
        (str(path.relative_to(TOP)), line, text)
        for path in sorted((TOP / "src" / room).rglob("*"))
        if path.suffix in (".cc", ".h")
        for line, text in messages(path)
        if " " in text and words(text)
    ]
    assert not wrong


@pytest.mark.parametrize(
    "room", sorted(path.name for path in (TOP / "src").iterdir() if path.is_dir())
)
def test_comments(room):
    wrong = []
    for path in sorted((TOP / "src" / room).rglob("*")):
        if path.suffix in (".cc", ".h"):
            text = path.read_text()
            for token in TOKEN.finditer(text):
                if token[0].startswith("//") and words(token[0]):
                    wrong.append(
                        (
                            str(path.relative_to(TOP)),
                            text.count("\n", 0, token.start()) + 1,
                            words(token[0]),
                        )
                    )
    assert not wrong


def test_pages():
    pages = [
        TOP / "README.md",
        TOP / "CONTRIBUTING.md",
        *(TOP / "docs").glob("*.md"),
        *(TOP / "docs/formats").glob("*.md"),
        *(TOP / "docs/protocols").glob("*.md"),
    ]
    wrong = [
        (str(page.relative_to(TOP)), line, words(text))
        for page in pages
        if page.name != "terms.md"
        for line, text in enumerate(page.read_text().splitlines(), 1)
        if words(text)
    ]
    assert not wrong


def test_help(cairn):
    for verb in ["", *re.findall(r"^  ([a-z]+) +\S", cairn("help").out, re.M)]:
        shown = cairn("help", *([verb] if verb else [])).out
        assert not PLAIN.search(shown), (verb, PLAIN.search(shown))


def test_messages_name_the_file_of_the_user():
    """Nodes without a name are called #block and a number, which nobody typed: but for a running graph, whose users name its nodes."""
    graph = ("src/block/graph/", "src/job/live/", "src/daemon/")
    for path in (TOP / "src").rglob("*.cc"):
        if str(path.relative_to(TOP)).startswith(graph):
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            assert (
                not re.search(r'" *\+ *(?:\w+(?:\.|->))?node_name(?:_\b|\(\))', line)
                or "nodes_by_file" in line
            ), (path.name, number, line)


@pytest.fixture
def small(folder):
    """A file system of 3 MiB."""
    with small_file_system(folder / "small", "3m") as path:
        yield path


def test_files_that_only_the_program_knows_are_not_named(folder, small, cairn):
    (folder / "big.raw").write_bytes(os.urandom(5 << 20))
    sparse_disk("small/base.raw", 64 << 10)
    for words in (["-O", "qcow2"], ["-B", "base.raw", "-F", "raw", "-O", "qcow2"]):
        cairn("create", "-q", "small/old.qcow2", "1M")
        done = cairn(
            "convert", "--overwrite", *words, folder / "big.raw", "old.qcow2", ok=False, cwd="small"
        )
        assert (
            done.code == 1
            and "No space left" in done.err
            and "'old.qcow2' is as it was." in done.err
        ), done.err
        assert "/proc/" not in done.err and ".cairn-" not in done.err, done.err
        os.unlink("small/old.qcow2")
    env = {**os.environ, "TMPDIR": str(small)}
    done = cairn(
        "bench", "--snapshot", "-w", "-c", "100", "-s", "65536", "big.raw", ok=False, env=env
    )
    assert done.code == 1 and f"the temporary file in '{small}': writing" in done.err, done.err
    done = cairn("bitmap", "--add", "-f", "raw", "big.raw", "monday", ok=False)
    assert done.code == 1 and "#block" not in done.err and "big.raw" in done.err

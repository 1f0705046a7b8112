"""Messages, help and pages in plain technical English: docs/terms.md has the words that are used instead of these."""
import re

import pytest

from conftest import TOP

pytestmark = pytest.mark.any_engine

# What a crash leaves behind is the only thing behind another.
NOT_PLAIN = re.compile(r"(?<!leave )(?<!leaves )(?<!left )\b(behind)\b|\b(lies?|lying|told|tells?|telling|whoever|folders?|anew|stands? in|in front of|"
                       r"goes on|beside|strangers?|how far)\b", re.I)
PLAIN = re.compile(NOT_PLAIN.pattern + r"|\b(looks? (?:at|for)|looked (?:at|for))\b", re.I)
# A comment, an include, a character, or a string with what it holds.
TOKEN = re.compile(r'//[^\n]*|/\*.*?\*/|#include[^\n]*|\'(?:[^\'\\]|\\.)+\'|"((?:[^"\\\n]|\\.)*)"', re.S)


def messages(path):
    """The strings of a source file, with their lines; parts that follow one another are one string."""
    text = path.read_text()
    found, end = [], None
    for token in TOKEN.finditer(text):
        if token[1] is None:
            continue
        if end is not None and not text[end:token.start()].strip():
            found[-1][1] += token[1]
        else:
            found.append([text.count("\n", 0, token.start()) + 1, token[1]])
        end = token.end()
    return found


def words(text):
    return [match[0] for match in NOT_PLAIN.finditer(text)]


@pytest.mark.parametrize("room", sorted(path.name for path in (TOP / "src").iterdir() if path.is_dir()))
def test_messages(room):
    wrong = [(str(path.relative_to(TOP)), line, text) for path in sorted((TOP / "src" / room).rglob("*")) if path.suffix in (".cc", ".h")
             for line, text in messages(path) if " " in text and words(text)]
    assert not wrong


def test_pages():
    pages = [TOP / "README.md", *(TOP / "docs").glob("*.md"), *(TOP / "docs/formats").glob("*.md")]
    wrong = [(str(page.relative_to(TOP)), line, words(text)) for page in pages if page.name != "terms.md"
             for line, text in enumerate(page.read_text().splitlines(), 1) if words(text)]
    assert not wrong


def test_help(cairn):
    for verb in ["", *re.findall(r"^  ([a-z]+) +\S", cairn("help").out, re.M)]:
        shown = cairn("help", *([verb] if verb else [])).out
        assert not PLAIN.search(shown), (verb, PLAIN.search(shown))

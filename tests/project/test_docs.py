"""What the pages say must be there."""
import re

from conftest import TOP


def test_pages_name_files_that_exist():
    for page in ("README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in (TOP / "docs").glob("*.md")),
                 *(f"docs/formats/{path.name}" for path in (TOP / "docs/formats").glob("*.md"))):
        text = (TOP / page).read_text()
        for name in re.findall(r"`((?:src|tests|docs|fuzz|bench|tools|include)/[\w./-]+)`", text):
            assert (TOP / name).exists(), (page, name)
        for link in re.findall(r"\]\(([\w./-]+)\)", text):
            assert ((TOP / page).parent / link).exists(), (page, link)


def test_readme_lists_every_verb_and_no_other(cairn):
    listed = set(re.findall(r"^\| `([a-z]+)` \|", (TOP / "README.md").read_text(), re.M))
    printed = set(re.findall(r"^  ([a-z]+) +\S", cairn("help").out, re.M))
    assert listed == printed


def test_every_folder_of_the_source_begins_with_a_header_that_explains_it():
    for room in (TOP / "src").iterdir():
        if room.is_dir() and any(room.rglob("*.cc")):
            header = room / f"{room.name}.h"
            assert header.exists() and header.read_text().startswith("// src/"), room

"""What the pages say must be there."""
import re

from conftest import TOP


def test_pages_name_files_that_exist():
    for page in (
        "README.md",
        "CONTRIBUTING.md",
        *(f"docs/{path.name}" for path in (TOP / "docs").glob("*.md")),
        *(f"docs/formats/{path.name}" for path in (TOP / "docs/formats").glob("*.md")),
    ):
        text = (TOP / page).read_text()
        for name in re.findall(r"`((?:src|tests|docs|fuzz|bench|tools|include)/[\w./-]+)`", text):
            assert (TOP / name).exists(), (page, name)
        for link in re.findall(r"\]\(([\w./-]+)\)", text):
            assert ((TOP / page).parent / link).exists(), (page, link)


def test_pages_for_developers_name_what_is_there():
    """Names of functions, classes and members, where a page is about the sources."""
    sources = "\n".join(
        path.read_text()
        for folder in ("src", "tests", "fuzz")
        for path in (TOP / folder).rglob("*")
        if path.suffix in (".h", ".cc", ".inc", ".py")
    )
    sources += (TOP / "CMakeLists.txt").read_text()
    pages = [TOP / "docs/architecture.md", *sorted((TOP / "docs").glob("adding-a*.md"))]
    assert len(pages) >= 6
    for page in pages:
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
        named = [
            name
            for name in re.findall(r"`((?:\w+(?:::|\.|\())*\w+)(?:\(\w*\))?\(?\)?`", text)
            if re.search(r"_|[a-z][A-Z]|::", name)
        ]
        assert named, page
        for name in named:
            for part in re.split(r"::|\.|\(", name):
                assert re.search(rf"\b{re.escape(part)}\b", sources), (page.name, name)


def test_readme_lists_every_verb_and_no_other(cairn):
    listed = set(re.findall(r"^\| `([a-z]+)` \|", (TOP / "README.md").read_text(), re.M))
    printed = set(re.findall(r"^  ([a-z]+) +\S", cairn("help").out, re.M))
    assert listed == printed


def test_every_folder_of_the_source_begins_with_a_header_that_explains_it():
    for room in (TOP / "src").iterdir():
        if room.is_dir() and any(room.rglob("*.cc")):
            header = room / f"{room.name}.h"
            assert header.exists() and header.read_text().startswith("// src/"), room


def pages_of_drivers():
    """Names of drivers with the pages that they name in the sources."""
    for source in (TOP / "src").rglob("*.cc"):
        if name := re.search(r'Driver\(\s*\{\.name = "([\w-]+)"', text := source.read_text()):
            page = re.search(r'\.page = "([^"]+)"', text)
            yield name[1], page and page[1]


def drivers_by_name(cairn):
    return {
        driver["name"]: driver for driver in cairn("formats", "--output", "json").json()["formats"]
    }


def test_readme_says_what_each_driver_can_do(cairn):
    """The rows of formats and protocols agree with `cairn formats`; who has none has a page."""
    known = drivers_by_name(cairn)
    seen = []
    for line in (TOP / "README.md").read_text().split("## The verbs")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        names = re.sub(r" *\([^)]*\)", "", cells[0]).split(", ")
        if not line.startswith("|") or not set(names) <= known.keys():
            continue
        seen += names
        for name in names:
            has = known[name]["abilities"]
            assert cells[1] == "yes", name
            assert (cells[2] != "–") == has["write"], name
            assert (cells[3] != "–") == has["create"], name
            if len(cells) == 6:
                assert cells[4] == (
                    "report and repair" if has["repair"] else "report" if has["check"] else "–"
                ), name
    assert len(seen) == len(set(seen))
    paged = {name for name, page in pages_of_drivers() if page}
    assert known.keys() - seen <= paged


def test_architecture_names_the_drivers(cairn):
    """Rows of the rooms name the folders, and the folders the drivers."""
    text = (TOP / "docs/architecture.md").read_text()
    inside = {
        "null-co": "null",
        "null-aio": "null",
        "host_device": "file",
        "host_cdrom": "file",
        **dict.fromkeys(("gzip", "xz", "bzip2", "zstd"), "packed"),
    }
    kinds = {
        inside.get(name, name): driver["kind"] for name, driver in drivers_by_name(cairn).items()
    }
    for room in ("protocol", "filter", "format"):
        row = re.search(rf"^\| `src/{room}/` \|.*", text, re.M)[0].split("|")[2]
        for name in re.findall(r"`([\w-]+)`", row):
            assert (TOP / "src" / room / name.replace("-", "_")).is_dir()
            assert kinds[name] == room


def test_every_driver_has_the_page_that_it_names():
    pages = [page for _, page in pages_of_drivers() if page]
    assert len(pages) > 10
    for page in pages:
        assert (TOP / "docs" / page).exists(), page

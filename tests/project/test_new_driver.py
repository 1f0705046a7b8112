"""A new format is a folder, a page and one row: the sample format is added to a copy of the sources, and works."""
import json
import os
import random
import shlex
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import CAIRN, TOP, call

SAMPLE = TOP / "tests/format/sample_format"


def files_below(place):
    return {
        str(file.relative_to(place)): file.read_bytes()
        for file in place.rglob("*")
        if file.is_file()
    }


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The sources with the sample format, as docs/adding-a-driver.md adds it."""
    place = tmp_path_factory.mktemp("tree")
    for part in ("src", "docs", "fuzz", "tests"):
        shutil.copytree(TOP / part, place / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(TOP / "CMakeLists.txt", place)
    before = files_below(place)
    folder = place / "src/format/sample"
    folder.mkdir()
    for source in [*SAMPLE.glob("*.h"), *SAMPLE.glob("*.cc")]:
        shutil.copy(source, folder)
    shutil.copy(SAMPLE / "sample.md", place / "docs/formats")
    with (place / "src/drivers.inc").open("a") as table:
        table.write("CAIRN_DRIVER(sample)\n")
    after = files_below(place)
    assert [name for name in before if before[name] != after.get(name)] == ["src/drivers.inc"]
    new = {os.path.dirname(name) for name in after.keys() - before.keys()}
    assert new == {"src/format/sample", "docs/formats"}
    return place


@pytest.fixture(scope="module")
def programs(tree):
    """The command and the conformance suite with the format: what is new is compiled, the rest is linked as it is."""
    build = CAIRN.parent
    commands = json.loads((build / "compile_commands.json").read_text())
    drivers = next(
        shlex.split(entry["command"])
        for entry in commands
        if entry["file"] == str(TOP / "src/drivers.cc")
    )
    flags = drivers[: drivers.index("-o")]
    flags = [word.replace(f"-I{TOP}/", f"-I{tree}/") for word in flags]
    sources = [
        "src/drivers.cc",
        "src/format/sample/node.cc",
        "src/format/sample/driver.cc",
        "tests/format/conformance_test.cc",
    ]

    def compiled(source):
        result = tree / (
            os.path.basename(os.path.dirname(source)) + "-" + os.path.basename(source) + ".o"
        )
        call(
            *flags,
            f"-I{tree}/tests",
            f"-I{tree}/tests/support",
            "-c",
            tree / source,
            "-o",
            result,
            timeout=600,
        )
        return str(result)

    with ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        *format_objects, suite = pool.map(compiled, sources)
    lines = call("ninja", "-C", build, "-t", "commands", "cairn").out.splitlines()
    link = next(line for line in reversed(lines) if " -o cairn " in line)
    link = next(part for part in link.split("&&") if " -o cairn " in part)
    main = "CMakeFiles/cairn.dir/src/main.cc.o"
    own = " ".join(format_objects)
    for line in (
        link.replace(main, f"{main} {own}").replace(" -o cairn ", f" -o {tree}/cairn "),
        link.replace(main, f"{suite} {own} -lgtest_main -lgtest").replace(
            " -o cairn ", f" -o {tree}/suite "
        ),
    ):
        subprocess.run(line, shell=True, check=True, cwd=build)
    return tree / "cairn", tree / "suite"


@pytest.mark.slow
def test_the_command_knows_it(programs, tree):
    cairn, _ = programs
    (entry,) = call(cairn, "formats", "--output", "json", "sample").json()["formats"]
    assert entry["kind"] == "format" and entry["endings"] == ["sample"]
    can = {name for name, has in entry["abilities"].items() if has}
    assert can == {"check", "create", "read", "repair", "resize", "write"}
    raw, image, back = tree / "disk.raw", tree / "disk.sample", tree / "back.raw"
    content = (
        random.Random(7).randbytes(300_000) + bytes(700_000) + random.Random(8).randbytes(48_576)
    )
    raw.write_bytes(content)
    call(cairn, "convert", "-f", "raw", raw, image)
    assert call(cairn, "info", "--output", "json", image).json()["format"] == "sample"
    call(cairn, "check", image)
    call(cairn, "convert", "-O", "raw", image, back)
    assert back.read_bytes()[: len(content)] == content
    call(cairn, "resize", image, "2M")
    call(cairn, "io", "-c", "write -P 7 1M 100k", "-c", "read -P 7 1M 100k", image)
    with image.open("r+b") as file:
        file.seek(4096)
        file.write((9999).to_bytes(4, "little"))
    assert call(cairn, "check", image, ok=False).code == 2
    call(cairn, "check", "-r", "all", image)
    call(cairn, "check", image)


@pytest.mark.slow
def test_the_conformance_suite_goes_through_it(programs):
    _, suite = programs
    done = call(suite, "--gtest_filter=*sample_*", timeout=300)
    assert "[  PASSED  ] 6 tests" in done.out, done.out

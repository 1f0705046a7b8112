"""Rules about the sources that no compiler checks."""
import re
from collections import defaultdict
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
SOURCES = sorted(file for end in ("*.h", "*.cc") for file in (TOP / "src").rglob(end))

# Rooms from the ground up; each may include itself and those before it. Rooms in one set do not include each other.
ROOMS = [
    {"platform"},
    {"base"},
    {"async"},
    {"codec", "crypto", "net"},
    {"block"},
    {"filter", "protocol", "format"},
    {"job"},
    {"export"},
    {"operation"},
    {"qemu"},
    {"cli", "daemon"},
    {"control"},
]


def code_of(file):
    """The text without comments, and with empty strings."""
    text = re.sub(r'R"(\w*)\((?s:.*?)\)\1"', '""', file.read_text())
    return re.sub(
        r'//[^\n]*|/\*(?s:.*?)\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'',
        lambda found: '""' if found[0].startswith('"') else " ",
        text,
    )


TOKEN = re.compile(
    r"\b(?P<namespace>(?:inline )?namespace\b\s*(?P<space>[\w:]*)\s*)\{"
    r"|\b(?:class|struct|enum(?:\s+class|\s+struct)?|union)\s+(?:\[\[\w+\]\]\s*)?(?P<type>\w+)"
    r"(?P<tail>\s+final)?\s*(?::[^:;{}()][^;{}()]*)?\{|[{}]"
)


def types_of(file):
    """The types that a file defines for all to see, with their namespaces; nested types belong to their own."""
    stack = []
    for found in TOKEN.finditer(code_of(file)):
        if found[0] == "}":
            stack.pop()
        elif found["namespace"]:
            stack.append(("namespace", found["space"] or "(anonymous)"))
        else:
            if found["type"] and all(
                kind == "namespace" and name != "(anonymous)" for kind, name in stack
            ):
                yield "::".join([name for _, name in stack] + [found["type"]])
            stack.append(("block", ""))
    assert not stack, file


def double_types():
    """The names of types that are defined in more than one file, with the files."""
    places = defaultdict(list)
    for file in SOURCES:
        for name in types_of(file):
            places[name].append(str(file.relative_to(TOP)))
    assert len(places) > 300  # they were found at all
    return {name: files for name, files in places.items() if len(files) > 1}


def test_no_name_is_two_types():
    assert double_types() == {}


def includes_against_the_order():
    """(file, room) for every include that points up or to a room beside."""
    level = {room: i for i, rooms in enumerate(ROOMS) for room in rooms}
    wrong = []
    for file in SOURCES:
        room = file.relative_to(TOP / "src").parts[0]
        for name in re.findall(r'^#include "(\w+)/', file.read_text(), re.M):
            if room in level and name in level and name != room and level[name] >= level[room]:
                wrong.append((str(file.relative_to(TOP)), name))
    return wrong


def test_includes_point_down():
    assert includes_against_the_order() == []
    level = set().union(*ROOMS)
    assert {
        file.relative_to(TOP / "src").parts[0]
        for file in SOURCES
        if len(file.relative_to(TOP / "src").parts) > 1
    } == level


def test_only_the_platform_asks_for_the_system():
    asks = re.compile(
        r"^\s*#\s*(?:el)?if.*\b(?:_WIN32|_WIN64|__linux__|__APPLE__|__unix__)\b", re.M
    )
    wrong = [
        str(file.relative_to(TOP))
        for file in SOURCES
        if file.relative_to(TOP / "src").parts[0] != "platform" and asks.search(file.read_text())
    ]
    assert wrong == []


# Rooms that are compiled for every system; those above them follow.
NEUTRAL = {"base", "async", "net", "codec", "crypto", "block", "format", "job"}


def test_neutral_rooms_include_no_header_of_one_system():
    """What only Linux has is in folders of that name, which cmake/systems.cmake leaves out."""
    foreign = re.compile(
        r"^#include <((?:sys|linux|net|netinet|arpa)/[\w/]+|poll|unistd|pthread|dlfcn|dirent|netdb"
        r"|termios|pwd|spawn|fnmatch|syslog|windows|winsock2)\.h>",
        re.M,
    )
    # Every compiler of ours has these.
    allowed = {("src/async/adaptive_mutex.h", "pthread"), ("src/net/tls.h", "sys/types")}
    found = {
        (str(file.relative_to(TOP)), name)
        for file in SOURCES
        if file.relative_to(TOP / "src").parts[0] in NEUTRAL
        and "linux" not in file.relative_to(TOP / "src").parts
        for name in foreign.findall(file.read_text())
    }
    assert found == allowed


def test_only_the_command_line_reads_the_environment():
    reads = re.compile(r"\b(?:secure_)?(?:getenv|setenv|putenv|unsetenv)\s*\(|\benviron\b")
    wrong = [
        str(file.relative_to(TOP))
        for file in SOURCES
        if file.relative_to(TOP / "src").parts[0] not in ("cli", "control")
        and reads.search(code_of(file))
    ]
    assert wrong == []


# Nothing that several disks share may be waited for: late libraries, which are loaded once, use function-local statics.
def test_no_lock_is_shared_by_the_whole_process():
    shared = re.compile(
        r"\bstatic\s+(?:inline\s+)?(?:std::\w*mutex|AdaptiveMutex|Mutex|RwLock|RangeLock|Semaphore)\b"
    )
    wrong = [str(file.relative_to(TOP)) for file in SOURCES if shared.search(code_of(file))]
    assert wrong == []


def test_the_command_line_stands_on_operations():
    """What src/cli includes besides operations is what cli.h names."""
    helpers = set(re.findall(r"^//   (\w+/[\w/]+\.h) ", (TOP / "src/cli/cli.h").read_text(), re.M))
    assert 0 < len(helpers) <= 8
    used = {
        name
        for file in SOURCES
        if file.relative_to(TOP / "src").parts[0] == "cli"
        for name in re.findall(r'^#include "(\w+/[\w/]+\.h)"', file.read_text(), re.M)
        if name.split("/")[0] not in ("cli", "operation", "qemu", "platform")
    }
    assert used == helpers


def test_verbs_are_short():
    verbs = re.findall(r"\b(\w+)_verb\b", (TOP / "src/cli/verbs.cc").read_text())
    files = [file for verb in verbs if (file := TOP / f"src/cli/{verb}.cc").exists()]
    files.append(TOP / "src/control/ctl.cc")
    assert len(files) > 15
    assert {
        file.name: lines for file in files if (lines := len(file.read_text().splitlines())) > 200
    } == {}


def test_only_the_command_line_prints():
    speaks = re.compile(
        r"\b(?:std::)?(?:printf|puts|putchar|fputs|fputc|fwrite|vprintf|perror)\s*\(|\bfprintf\s*\(\s*std(?:out|err)\b"
        r"|\bstd::c(?:out|err)\b|\bstd(?:out|err)\b|\bSTD(?:OUT|ERR)_FILENO\b"
    )
    said = [
        (str(file.relative_to(TOP)), line.strip())
        for file in SOURCES
        if file.relative_to(TOP / "src").parts[0] not in ("cli", "control")
        and len(file.relative_to(TOP / "src").parts) > 1
        for line in code_of(file).splitlines()
        if speaks.search(line)
    ]
    assert said == []


# A program that embeds the library has no flags: hints name the option they are about (base/error.h). What stands here are
# QEMU's own words, and commands of other programs and ours.
WORDS_WITH_FLAGS = (
    "Try --skip-broken-bitmaps, or use",
    "--format RAW",
    "`cairn convert --salvage`",
)


def test_only_the_command_line_names_flags():
    flag = re.compile(r'"[^"]*--[a-z]')
    wrong = [
        (str(file.relative_to(TOP)), line.strip())
        for file in SOURCES
        if file.relative_to(TOP / "src").parts[0] not in ("cli", "control", "qemu")
        for line in file.read_text().splitlines()
        if flag.search(line) and not any(words in line for words in WORDS_WITH_FLAGS)
    ]
    assert wrong == []

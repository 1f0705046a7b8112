"""What there is for macOS compiles against declarations of its calls (tests/platform/darwin/include), and uses no calls of Linux."""
import re
import subprocess

import pytest

from conftest import TOP

pytestmark = pytest.mark.any_engine
PLATFORM = TOP / "src/platform"
# With the driver for files and devices of the host.
SOURCES = sorted(
    path
    for folder in (
        *(PLATFORM / name for name in ("macos", "posix", ".")),
        *(TOP / "src/protocol/file" / name for name in (".", "elsewhere")),
    )
    for path in folder.glob("*.cc")
)
LACKING = """SOCK_CLOEXEC SOCK_NONBLOCK MSG_NOSIGNAL accept4 pipe2 eventfd fallocate posix_fallocate copy_file_range preadv2 pwritev2
getrandom fdatasync POLLRDHUP MAP_POPULATE mremap gettid ppoll epoll_wait syscall F_OFD_SETLK F_OFD_GETLK O_TMPFILE O_PATH prctl
dup3""".split()


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(TOP / "src")))
def test_sources_compile(source):
    words = "-std=c++20 -fsyntax-only -Wall -Wextra -Wconversion -Wshadow -Wno-sign-conversion -Werror -D__APPLE__"
    include = ["-I", TOP / "tests/platform/darwin/include", "-I", TOP / "src"]
    done = subprocess.run(
        ["clang++-19", *words.split(), *include, source], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("folder", ["macos", "posix"])
def test_sources_use_nothing_that_macos_lacks(folder):
    for path in sorted((PLATFORM / folder).iterdir()):
        assert not set(LACKING) & set(re.findall(r"\w+", path.read_text())), path


def test_every_header_is_implemented():
    """Each function of the room is defined for macOS, where it is for Linux."""
    names = {
        folder: {
            name
            for path in (PLATFORM / folder).glob("*.cc")
            for name in re.findall(r"^\w[\w:<>,&* ]*?[ *](\w+)\([^;{]*\{", path.read_text(), re.M)
        }
        for folder in ("linux", "macos")
    }
    headers = " ".join(path.read_text() for path in PLATFORM.glob("*.h"))
    public = {name for name in names["linux"] if re.search(rf"\b{name}\(", headers)}
    assert len(public) > 25 and public - names["macos"] == set()

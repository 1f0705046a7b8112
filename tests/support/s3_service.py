"""A small S3 service that programs under test are pointed at, as fixtures that a module imports."""
import pytest

from support.s3 import S3Server, use_service


@pytest.fixture
def server():
    server = S3Server()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def environment(monkeypatch, folder, server):
    use_service(monkeypatch, folder, server)

from collections.abc import Iterator

import pytest

from tests.helpers.stub import StubServer, running_stub

TOKEN = "cv_" + "0" * 32 + "_" + "s3cret-" * 6


@pytest.fixture(scope="module")
def one_stub() -> Iterator[StubServer]:
    with running_stub() as stub:
        yield stub


@pytest.fixture
def stub(one_stub: StubServer, monkeypatch: pytest.MonkeyPatch) -> StubServer:
    one_stub.replies.clear()
    one_stub.asked.clear()
    monkeypatch.setenv("CALLVAULT_SERVER", one_stub.url)
    return one_stub


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CALLVAULT_SERVER", "CALLVAULT_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CALLVAULT_TOKEN", TOKEN)

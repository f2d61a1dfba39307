from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from api import AddressUnavailable, bind, serve, url_of
from nas.settings import Settings

SERVE = """
import sys
from pathlib import Path
from api import serve
from nas.settings import Settings
serve(
    Settings(data=Path(sys.argv[1]), port=0, poll_seconds=0.05),
    on_ready=lambda url: print(url, flush=True),
)
print("ended", flush=True)
"""


def test_a_port_in_use_is_told_before_anything_starts(tmp_path: Path) -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressUnavailable, match=rf"127\.0\.0\.1:{port}.*--port"):
            serve(Settings(data=tmp_path / "data", port=port))
        assert not (tmp_path / "data").exists()


def test_a_host_that_is_not_ours_is_told() -> None:
    with pytest.raises(AddressUnavailable, match="no-such-host"):
        bind("no-such-host.invalid", 0)
    with pytest.raises(AddressUnavailable, match=r"192\.0\.2\.1"):
        bind("192.0.2.1", 0)


def test_a_port_that_was_just_given_up_can_be_taken_again() -> None:
    first = bind("127.0.0.1", 0)
    port = first.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)):
        first.accept()[0].close()
    first.close()
    bind("127.0.0.1", port).close()


def test_the_url_is_where_it_is_found_from_here() -> None:
    with bind("0.0.0.0", 0) as everywhere:  # noqa: S104 - closed at once
        assert url_of(everywhere) == f"http://127.0.0.1:{everywhere.getsockname()[1]}"
    with bind("localhost", 0) as local:
        assert httpx.URL(url_of(local)).host in ("127.0.0.1", "::1")


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_it_promptly_though_a_stream_is_open(
    tmp_path: Path, migrated_sqlite: Path, signal: str
) -> None:
    (tmp_path / "paretoformer.db").write_bytes(migrated_sqlite.read_bytes())
    command = [sys.executable, "-c", SERVE, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        job = httpx.post(f"{url}/v1/jobs", json={"task": {"name": "text_lm"}}).json()["id"]
        with httpx.stream("GET", f"{url}/v1/jobs/{job}/events", timeout=10) as response:
            lines = response.iter_lines()
            assert next(lines) == "id: 1"
            started = time.monotonic()
            process.send_signal(getattr(__import__("signal"), signal))
            for _ in lines:
                pass
        process.wait(10)
        assert time.monotonic() - started < 3
        if signal == "SIGTERM":
            assert process.stdout.read() == "ended\n" or process.returncode == -15

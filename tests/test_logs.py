from __future__ import annotations

import subprocess
import sys

CODE = """
import structlog
from nas.logs import configure_logging
from nas.settings import Settings

configure_logging(Settings())
structlog.get_logger().error("nobody will read this")
print("and yet it goes on", flush=True)
"""


def test_a_log_that_cannot_be_written_ends_nobody() -> None:
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            [sys.executable, "-c", CODE],
            stdout=subprocess.PIPE,
            stderr=full,
            text=True,
            check=False,
        )
    assert process.stdout == "and yet it goes on\n"

"""What `make demo` runs: service, search over real text, front, and the winner trained on.

Every step is a command that you could type; each is printed before it runs.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

HERE = Path(__file__).resolve().parent
OUTPUT = Path("demo-output")
NAS = str(Path(sys.executable).parent / "nas")
START_SECONDS = 60
TRAIN_STEPS = "60"


def main() -> int:
    """Run the demo; the exit code of the first command that fails."""
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir()
    port = free_port()
    os.environ["NAS_URL"] = f"http://127.0.0.1:{port}"
    began = time.monotonic()
    with (OUTPUT / "service.log").open("w") as log:
        command = [NAS, "serve", "--port", str(port), "--data", str(OUTPUT / "service")]
        say(command, f"(log: {OUTPUT / 'service.log'})")
        service = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)  # noqa: S603
        try:
            wait_until_ready(service)
            code = steps()
        except KeyboardInterrupt:
            code = 130
        finally:
            service.send_signal(signal.SIGTERM)
            service.wait(60)
    if code == 0:
        print(f"\nDone in {time.monotonic() - began:.0f} s. The service is stopped.")
        print(f"The front:  {OUTPUT / 'front.png'}\nThe winner: {OUTPUT / 'trained'}")
    return code


def steps() -> int:
    """Search, look, export, train."""
    winner, trained = str(OUTPUT / "winner"), str(OUTPUT / "trained")
    for arguments in (
        ["submit", str(HERE / "demo.yaml"), "--watch"],
        ["pareto", "latest", "--plot", str(OUTPUT / "front.png")],
        ["export", "latest", "--trial", "knee", "--format", "config", "-o", winner],
        ["train", f"{winner}/config.json", "--from-weights", "--steps", TRAIN_STEPS, "-o", trained],
    ):
        say([NAS, *arguments])
        code = subprocess.run([NAS, *arguments], check=False).returncode  # noqa: S603
        if code:
            return code
    return 0


def say(command: list[str], note: str = "") -> None:
    """Print a command as one would type it."""
    print(f"\n$ {shlex.join(['nas', *command[1:]])} {note}".rstrip(), flush=True)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(service: subprocess.Popen[bytes]) -> None:
    """Until the service and its worker can take a job."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and service.poll() is None:
        try:
            if httpx.get(f"{os.environ['NAS_URL']}/readyz", timeout=2).is_success:
                return
        except httpx.TransportError:
            pass  # it is not listening yet
        time.sleep(0.2)
    raise SystemExit(f"the service did not start; see {OUTPUT / 'service.log'}")


if __name__ == "__main__":
    sys.exit(main())

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from workers.processes import Child, Identity, descendants_of, reap
from workers.remains import Remains

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]


def gone(pid: int, seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


def module(folder: Path, name: str, body: str) -> dict[str, str]:
    """A module to run as a child, and the environment in which it is found."""
    (folder / f"{name}.py").write_text(body)
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    environment = module(
        tmp_path,
        "child",
        "import os, time\n"
        "from workers.processes import when_parent_ends\n"
        "when_parent_ends(lambda: os._exit(7))\n"
        "time.sleep(600)\n",
    )
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import time; from workers.processes import Child\n"
            "print(Child('child').process.pid, flush=True); time.sleep(600)",
        ],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert psutil.pid_exists(child)
    parent.kill()
    parent.wait()
    assert gone(child)


def test_ending_a_child_that_will_not_takes_its_descendants_along(tmp_path: Path) -> None:
    environment = module(
        tmp_path,
        "stubborn",
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print('ready', flush=True); time.sleep(600)\n",
    )
    child = Child("stubborn", environment=environment, stdout=subprocess.PIPE)
    assert child.process.stdout is not None
    child.process.stdout.readline()
    grandchildren = descendants_of(child.process.pid)
    assert grandchildren
    assert child.end(grace=0.2) == -9
    assert all(gone(g.pid) for g in grandchildren)


def test_a_process_is_known_by_its_start_as_well() -> None:
    sleeper = subprocess.Popen(SLEEPER)
    try:
        identity = Identity.of(sleeper.pid)
        stranger = Identity(sleeper.pid, identity.started - 100)
        assert identity.process() is not None
        assert stranger.process() is None
        assert reap([stranger], grace=0.0) == []
        assert sleeper.poll() is None
        assert reap([identity], grace=0.0) == [sleeper.pid]
    finally:
        sleeper.kill()
        sleeper.wait()


def test_notes_that_cannot_be_written_or_read_end_no_worker(tmp_path: Path) -> None:
    folder = tmp_path / "workers"
    folder.write_text("a file where the folder should be")
    remains = Remains(folder, "worker")
    mine = [Identity.of(os.getpid())]
    remains.record(mine)
    folder.unlink()
    remains.record(mine)  # it was not taken for done
    assert [p.name for p in folder.iterdir()] == ["worker.json"]
    for content in ("", "[]", "{}", '{"processes": [{"pid": 1}]}'):
        (folder / "other.json").write_text(content)
        remains.reap_others()


def test_what_a_dead_worker_left_is_ended_and_a_living_ones_is_not(tmp_path: Path) -> None:
    leftover, kept, worker = (subprocess.Popen(SLEEPER) for _ in range(3))
    try:
        dead = Identity(worker.pid, Identity.of(worker.pid).started - 100)
        Remains(tmp_path, "dead").record([dead, Identity.of(leftover.pid)])
        Remains(tmp_path, "alive").record([Identity.of(worker.pid), Identity.of(kept.pid)])
        Remains(tmp_path, "next").reap_others()
        assert gone(leftover.pid)
        assert kept.poll() is None
        assert [p.name for p in tmp_path.iterdir()] == ["alive.json"]
    finally:
        for process in (leftover, kept, worker):
            process.kill()
            process.wait()

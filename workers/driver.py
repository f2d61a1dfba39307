"""The process that drives Ray for one job.

It is started ahead of need, imports everything, connects to Ray, and waits for its order on
standard input. It renews no lease: the worker does, and tells it to stop with SIGTERM.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys

import ray
import structlog

from nas.errors import LeaseLost, NasError, StoreUnavailable
from nas.logs import configure_logging
from nas.settings import Settings
from nas.store import Store
from search_spaces import InvalidInput
from workers.job import JobRun
from workers.orders import Exit, Order, note_crash
from workers.processes import when_parent_ends
from workers.tuning import use_started_processes

log = structlog.get_logger()


def run(settings: Settings, order: Order) -> Exit:
    """Run a job to its end, or until it is told to stop."""
    store = Store(settings.database_url)
    job: JobRun | None = None
    try:
        job = JobRun(settings, store, order)
        signal.signal(signal.SIGTERM, lambda *_: job.stop())
        return carry_out(job)
    except LeaseLost as error:
        log.warning("lease lost", job=order.job, reason=str(error))
        return Exit.LEASE_LOST
    except StoreUnavailable as error:
        log.error("store unavailable", job=order.job, reason=str(error))
        return Exit.STORE_UNAVAILABLE
    except Exception as error:  # whatever it is, the worker is told, and tries again
        log.exception("job process crashed", job=order.job)
        note_crash(settings, order.job, f"{type(error).__name__}: {error}".splitlines()[0])
        raise
    finally:
        if job is not None:
            job.stop_file.unlink(missing_ok=True)
            shutil.rmtree(job.folder / "tune", ignore_errors=True)


def carry_out(job: JobRun) -> Exit:
    """Run the job; what is wrong with it and would be again ends it, with the reason."""
    try:
        return job.run()
    except (LeaseLost, StoreUnavailable):
        raise
    except (NasError, InvalidInput) as error:
        return job.fail(str(error))


def main() -> None:
    """``python -m workers.driver ADDRESS [private]``: get ready, wait, carry out, exit."""
    settings = Settings.model_validate_json(os.environ["NAS_JOB_SETTINGS"])
    configure_logging(settings)
    address, *private = sys.argv[1:]
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError) as error:
        log.error("ray cannot be reached", address=address, reason=str(error))
        os._exit(Exit.RAY_UNAVAILABLE)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Ray has set its own
    if private:
        use_started_processes()
    line = sys.stdin.readline()
    if not line:
        return  # never needed: the worker is gone
    when_parent_ends(lambda: os._exit(1))
    code = run(settings, Order.from_line(line))
    # not through Python's exit: Ray's threads would only delay it, and all is recorded
    os._exit(code)


if __name__ == "__main__":
    main()

"""The ``nas`` command: the composition root, which alone sees all other rooms."""

from __future__ import annotations

import os
import signal
import sys

INTERRUPTED = 130
"""The exit code of what Ctrl-C ended, as shells have it."""


def main() -> None:
    """What the console script ``nas`` runs; Ctrl-C ends it quietly from its first line on."""
    before = signal.getsignal(signal.SIGINT)
    listens = before is signal.default_int_handler
    try:
        if listens:
            # an exception would be lost, or told of, wherever it meets an import
            signal.signal(signal.SIGINT, _leave)
        from nas.cli.app import app

        signal.signal(signal.SIGINT, before)
        app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        if listens:
            signal.signal(signal.SIGINT, _leave)


def _leave(number: int, frame: object) -> None:
    """End at once: before and after a command there is nothing to bring to an end."""
    os._exit(INTERRUPTED)

"""The ``nas`` command: the composition root, which alone sees the service, the workers and the engine."""

from nas.cli.app import main

__all__ = ["main"]

"""The ``nas`` command: the composition root, which alone sees all other rooms."""

from nas.cli.app import main

__all__ = ["main"]

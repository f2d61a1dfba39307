"""The engine of Paretoformer: models, training, measures, search, store and their use cases."""

from importlib.metadata import version

__version__ = version("paretoformer")

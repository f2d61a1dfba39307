"""The engine of Paretoformer: models, training, measures, search, store and their use cases."""

__version__: str


def __getattr__(name: str) -> str:
    """The version, looked up when asked for: that takes longer than all else of this import."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    return version("paretoformer")

"""Modules of this project as one flat folder that needs the project no more.

``transformers`` loads code of a folder by following ``from .name import …`` from file to file, and
looks into no folder below. So ``nas.models.stack`` becomes ``paretoformer_nas_models_stack.py``:
its text with other imports, and nothing else changed.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("nas", "search_spaces")
PREFIX = "paretoformer"


def bundle(entries: Mapping[str, str], also: Mapping[str, Sequence[type]]) -> dict[str, str]:
    """The texts, by file name, of these modules and of all in this project that they import.

    entries: modules with the name that each is to have.  also: classes that an entry is to import
    although it does not say so, because it finds them by name.

    Raises:
        ValueError: an import that cannot be written from file to file.
    """
    texts: dict[str, str] = {}
    waiting = [*entries, *(found.__module__ for classes in also.values() for found in classes)]
    while waiting:
        module = waiting.pop()
        name = f"{entries.get(module) or _flat(module)}.py"
        if name in texts:
            continue
        text = _source(module)
        needed = list(_imports(module, text))
        texts[name] = _origin(module) + _with_classes(
            _rewritten(text, needed, entries), also.get(module, ())
        )
        waiting += [str(node.module) for node in needed]
    return texts


def _flat(module: str) -> str:
    return f"{PREFIX}_{module.replace('.', '_')}"


def _source(module: str) -> str:
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        raise ValueError(f"module {module} is not there as a file")
    return Path(found.origin).read_text(encoding="utf-8")


def _imports(module: str, text: str) -> Iterator[ast.ImportFrom]:
    """Its imports from this project, wherever they stand in it."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import) and any(_ours(alias.name) for alias in node.names):
            raise ValueError(f"{module}, line {node.lineno}: import names from modules instead")
        if isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{module}, line {node.lineno}: import by the whole name instead")
            if _ours(str(node.module)):
                yield node


def _ours(module: str) -> bool:
    return module.split(".")[0] in PACKAGES


def _rewritten(text: str, imports: Sequence[ast.ImportFrom], entries: Mapping[str, str]) -> str:
    lines = text.splitlines(keepends=True)
    for node in imports:
        module = str(node.module)
        line, flat = lines[node.lineno - 1], entries.get(module) or _flat(module)
        lines[node.lineno - 1] = line.replace(f"from {module} import", f"from .{flat} import", 1)
    return "".join(lines)


def _with_classes(text: str, classes: Sequence[type]) -> str:
    """With imports of these classes after its own."""
    if not classes:
        return text
    top = ast.parse(text).body
    last = max(node.end_lineno or 0 for node in top if isinstance(node, ast.ImportFrom))
    more = [
        f"from .{_flat(found.__module__)} import {found.__name__}  # noqa: F401\n"
        for found in classes
    ]
    lines = text.splitlines(keepends=True)
    return "".join((*lines[:last], *more, *lines[last:]))


def _origin(module: str) -> str:
    return f"# {module} of paretoformer {version('paretoformer')}, Apache-2.0.\n"

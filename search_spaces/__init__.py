"""What can be searched: architectures, mechanisms, and spaces of them. Pure data and arithmetic."""

from search_spaces.architecture import Architecture, Layer
from search_spaces.definition import SpaceDefinition
from search_spaces.errors import InvalidArchitecture, InvalidInput, InvalidSpace
from search_spaces.presets import list_spaces, load_space
from search_spaces.space import SearchSpace

__all__ = [
    "Architecture",
    "InvalidArchitecture",
    "InvalidInput",
    "InvalidSpace",
    "Layer",
    "SearchSpace",
    "SpaceDefinition",
    "list_spaces",
    "load_space",
]

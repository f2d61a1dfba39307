"""Strategies replayed on published tables, where every architecture has been trained already."""

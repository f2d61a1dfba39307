"""Attention modules, one per file, named as their specs."""

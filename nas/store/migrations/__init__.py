"""Alembic's scripts: each revision written by hand, each final once released."""

"""All SQL: tables, transactions, queries, migrations (SQLite and PostgreSQL)."""

from nas.store.database import Store

__all__ = ["Store"]

"""What a job has cost: core-seconds, and the energy that counters have measured."""

from __future__ import annotations

from sqlalchemy.orm import Session

from nas.store.jobs import fence
from nas.store.tables import JobRow


def add_cost(
    session: Session,
    job_id: str,
    token: int,
    *,
    search_core_seconds: float = 0.0,
    verification_core_seconds: float = 0.0,
    metered_kwh: float | None = None,
) -> None:
    """Add to the job's bill, of the search or of verification.

    metered_kwh: the energy of these core-seconds, if counters have measured it.

    Raises:
        LeaseLost
    """
    row = fence(session, job_id, token)
    if search_core_seconds:
        bill_search(row, search_core_seconds, metered_kwh)
    if verification_core_seconds:
        bill_verification(row, verification_core_seconds, metered_kwh)
    session.flush()


def bill_search(row: JobRow, core_seconds: float, metered_kwh: float | None) -> None:
    """Add to the bill of a locked job's search; None: no counter has measured the energy."""
    row.search_core_seconds += core_seconds
    if metered_kwh is not None:
        row.search_metered_core_seconds += core_seconds
        row.search_metered_kwh += metered_kwh


def bill_verification(row: JobRow, core_seconds: float, metered_kwh: float | None) -> None:
    """Add to the bill of a locked job's verification, likewise."""
    row.verification_core_seconds += core_seconds
    if metered_kwh is not None:
        row.verification_metered_core_seconds += core_seconds
        row.verification_metered_kwh += metered_kwh

"""The routes, one file for each resource. They parse, call a use case and return."""

from __future__ import annotations

from fastapi import APIRouter

from api.routes import (
    catalogue,
    datasets,
    events,
    exports,
    fronts,
    health,
    jobs,
    pages,
    profile,
    trials,
)

ROUTERS: tuple[APIRouter, ...] = (
    jobs.router,
    events.router,
    trials.router,
    fronts.router,
    exports.router,
    catalogue.router,
    datasets.router,
    profile.router,
    health.router,
    pages.router,
)
"""In the order of the documentation."""

"""The application: routes, errors, headers and metrics put together, for one store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import Depends, FastAPI
from starlette.staticfiles import StaticFiles

from api import errors, openapi
from api.dependencies import known_parameters
from api.observation import Observations, Observe
from api.openapi import problems
from api.routes import ROUTERS
from api.routes.pages import FOLDER
from api.security import Security
from api.tailer import Tailer
from nas import __version__
from nas.jobs import Jobs
from nas.jobs.health import export_counts, job_counts
from nas.settings import Settings
from nas.store import Store


def create_app(store: Store, settings: Settings) -> FastAPI:
    """The HTTP service over a store, which need not be reachable yet."""
    jobs = Jobs(store, settings)
    tailer = Tailer(jobs, settings.poll_seconds)

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(tailer.run())
        try:
            yield
        finally:
            tailer.close()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    app = FastAPI(
        title="Paretoformer",
        summary="Neural architecture search for efficient Transformers.",
        version=__version__,
        lifespan=running,
        docs_url=None,
        redoc_url=None,
    )
    app.state.store = store
    app.state.settings = settings
    app.state.jobs = jobs
    app.state.tailer = tailer
    app.state.observations = _observations(store, tailer)
    for router in ROUTERS:
        app.include_router(
            router, dependencies=[Depends(known_parameters)], responses=problems(422, 503)
        )
    app.mount("/dashboard", StaticFiles(directory=FOLDER), name="dashboard")
    errors.install(app)
    openapi.install(app)
    app.add_middleware(Security, host=settings.host)
    app.add_middleware(Observe, observations=app.state.observations)
    return app


def _observations(store: Store, tailer: Tailer) -> Observations:
    observed = Observations()
    observed.gauge("nas_jobs", "Jobs by state.", "state", lambda: job_counts(store))
    observed.gauge("nas_exports", "Exports by state.", "state", lambda: export_counts(store))
    observed.gauge(
        "nas_event_streams", "Open event streams.", "process", lambda: {"api": tailer.followers}
    )
    return observed

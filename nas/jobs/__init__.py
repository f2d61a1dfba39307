"""The use cases: what the service, the command line and the dashboard do with jobs."""

from nas.jobs.use_cases import Jobs

__all__ = ["Jobs"]

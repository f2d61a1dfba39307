# Two images: `api` has neither torch nor ray; `worker` has everything.
FROM python:3.11-slim AS base
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1
RUN useradd --create-home --uid 10001 paretoformer && mkdir /data && chown paretoformer /data
WORKDIR /app

FROM base AS api
COPY requirements-api.lock ./
RUN pip install -r requirements-api.lock
COPY pyproject.toml README.md LICENSE ./
COPY search_spaces search_spaces
COPY nas nas
COPY api api
COPY workers workers
RUN pip install --no-deps .
USER paretoformer

FROM base AS worker
COPY requirements.lock ./
RUN pip install -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY search_spaces search_spaces
COPY nas nas
COPY api api
COPY workers workers
RUN pip install --no-deps .
USER paretoformer

# One image; the command decides the role: migrate, web, worker, beat, sandbox (docs/adr/0013-one-image.md).
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=/opt/gpubroker
WORKDIR /src
RUN pip install --no-cache-dir --disable-pip-version-check uv==0.13.9
# What we depend on changes seldom: a layer of its own.
COPY pyproject.toml uv.lock README.md ./
RUN uv sync --frozen --no-dev --no-install-project --no-cache
COPY docs/runbook.md docs/runbook.md
COPY gpubroker gpubroker
COPY providers providers
COPY offers offers
COPY templates_app templates_app
COPY billing billing
COPY sessions_app sessions_app
RUN uv sync --frozen --no-dev --no-editable --no-cache

FROM python:${PYTHON}-slim-bookworm
# Logs line by line, one heap for all threads (docs/adr/0002-embedded-stack.md), and no .env of anybody's.
ENV PATH=/opt/gpubroker/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 MALLOC_ARENA_MAX=2 \
    DJANGO_SETTINGS_MODULE=gpubroker.settings GPUBROKER_ENV_FILE= GPUBROKER_DATA_DIR=/data SERVER_HOST=0.0.0.0
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin gpubroker \
    && install -d -m 0700 -o gpubroker -g gpubroker /data
COPY --from=build /opt/gpubroker /opt/gpubroker
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
# Of the web role; compose.yaml names another for worker and beat.
HEALTHCHECK --interval=15s --timeout=5s --start-period=180s --start-interval=2s --retries=3 \
    CMD ["python", "-m", "gpubroker.healthy", "web"]
ENTRYPOINT ["gpubroker"]
CMD ["web"]

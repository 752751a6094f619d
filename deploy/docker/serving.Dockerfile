# The image of a policy server, without torch. From the repository's root:
#   docker build --file deploy/docker/serving.Dockerfile --tag policy-server .
#
# It runs as user 1000 with a read-only root file system. Two directories must be writable, and /tmp must allow
# executables: /tmp for Ray, HAProxy's private directory and the home directory; /var/cache/policy-server for versions of
# the policy.

# Any image with Python 3.11 and its venv module, the same in both stages.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
# Further extras, separated by commas: postgres, s3, tracing; cuda instead of serving on an NVIDIA GPU.
ARG EXTRAS=serving
WORKDIR /source
RUN python3 -m venv /opt/policy-server
COPY constraints.txt LICENSE pyproject.toml README.md ./
COPY pipeline pipeline
COPY serving serving
RUN /opt/policy-server/bin/python -m pip wheel --no-cache-dir --no-deps --wheel-dir /dist . \
    && /opt/policy-server/bin/python -m pip install --no-cache-dir --constraint constraints.txt \
        "$(ls /dist/*.whl)[${EXTRAS}]"

FROM ${BASE}
RUN useradd --uid 1000 --user-group --no-create-home --home-dir /tmp policy \
    && install --directory --owner policy --group policy --mode 0700 /var/cache/policy-server
COPY --from=build /opt/policy-server /opt/policy-server
# Ray writes its token below the home directory.
ENV HOME=/tmp \
    PATH=/opt/policy-server/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0 \
    XDG_CACHE_HOME=/var/cache/policy-server
USER 1000:1000
WORKDIR /var/cache/policy-server
EXPOSE 8000
# Kubernetes ignores it; deploy/kubernetes has probes.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s CMD ["python", "-c", \
    "import urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:8000/-/healthz', timeout=4)"]
ENTRYPOINT ["python", "-m", "serving"]
CMD ["--help"]

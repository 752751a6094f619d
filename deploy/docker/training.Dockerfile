# The image that trains, registers and promotes policies. From the repository's root:
#   docker build --file deploy/docker/training.Dockerfile --tag policy-training .
#
# It runs as user 1000 with a read-only root file system. Two directories must be writable: /tmp for Ray and the
# home directory, /var/cache/policy-training for versions of the policy. Runs and models go to the server of
# MLFLOW_TRACKING_URI.

# Any image with Python 3.11 and its venv module, the same in both stages.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
# Further extras, separated by commas: postgres, s3.
ARG EXTRAS=pipeline
WORKDIR /source
RUN python3 -m venv /opt/policy-training
COPY constraints.txt LICENSE pyproject.toml README.md ./
COPY pipeline pipeline
COPY serving serving
RUN /opt/policy-training/bin/python -m pip wheel --no-cache-dir --no-deps --wheel-dir /dist . \
    && /opt/policy-training/bin/python -m pip install --no-cache-dir --constraint constraints.txt \
        "$(ls /dist/*.whl)[${EXTRAS}]"

FROM ${BASE}
RUN useradd --uid 1000 --user-group --no-create-home --home-dir /tmp policy \
    && install --directory --owner policy --group policy --mode 0700 /var/cache/policy-training
COPY --from=build /opt/policy-training /opt/policy-training
# Ray writes its token below the home directory.
ENV HOME=/tmp \
    PATH=/opt/policy-training/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0 \
    XDG_CACHE_HOME=/var/cache/policy-training
USER 1000:1000
WORKDIR /var/cache/policy-training
ENTRYPOINT ["python", "-m", "pipeline"]
CMD ["--help"]

# The operator's image; the sidecar runs from it too. From the root of the repository:
#   docker build -t crossfade.dev/operator:dev .
# The tests build this same file with buildah, on a base image made by debootstrap.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS dependencies
COPY requirements/operator.txt /opt/requirements.txt
# Byte code is checked neither by time stamp nor by hash: the files of an image do not change, and
# layers may carry other time stamps. The Kubernetes client's generated models and calls, 50 MB of
# byte code, are not used by its dynamic client.
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv --without-pip /opt/venv \
    && python3 -m pip --python /opt/venv install --quiet --no-compile --only-binary :all: \
        --no-deps --require-hashes --requirement /opt/requirements.txt \
    && /opt/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash \
        -x 'kubernetes/(aio/)?client/(models|api)/[a-z]' /opt/venv/lib
# Two malloc arenas: more only fragment the heap of a process whose threads mostly wait. A HOME,
# since importing kubernetes.aio fails for a user who has none.
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONPATH=/opt/crossfade \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    MALLOC_ARENA_MAX=2
# A number, so that `runAsNonRoot` can be checked; nothing is written, so a read-only root file
# system does.
USER 65532:65532
ENTRYPOINT ["python", "-m", "crossfade"]

FROM ${BASE_IMAGE} AS code
COPY operator/crossfade /opt/crossfade/crossfade
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /opt/crossfade

# The dependencies, by far the larger, are a layer that a change of the code leaves as it is.
FROM dependencies
COPY --from=code /opt/crossfade /opt/crossfade

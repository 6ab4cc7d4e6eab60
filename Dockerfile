# The image of the service; docs/deployment.md says how it is built, run and configured.
#   cpu (default): FROM scratch, Python and the requirements of `pip install kronmodel`
#   gpu:           the same with onnxruntime-gpu and the CUDA libraries that it needs
# BASE builds the image and gives it Python and the system libraries. For a reproducible build give it with its digest:
#   --build-arg BASE=docker.io/library/python:3.11-slim@sha256:...
ARG BASE=docker.io/library/python:3.11-slim

FROM ${BASE} AS requirements
ENV PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1
RUN apt-get update && apt-get install --yes --no-install-recommends binutils tini
WORKDIR /src
COPY pyproject.toml constraints.txt ./
# Extras of pyproject.toml, such as otel.
ARG EXTRAS=""
# The secrets are for networks where pip needs a mirror or a certificate of their own; without them pip uses PyPI.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=ca.crt,target=/run/secrets/ca.crt \
    python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; print(*project['dependencies'], *[line for extra in '${EXTRAS}'.split() for line in project['optional-dependencies'][extra]], sep='\n')" > requirements.txt \
    && pip install --constraint constraints.txt --requirement requirements.txt

FROM requirements AS build
COPY README.md LICENSE ./
COPY app app
COPY kronmodel kronmodel
COPY static static
COPY deploy/wheel.py deploy/
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=ca.crt,target=/run/secrets/ca.crt \
    PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt pip install --no-deps .
COPY deploy/image/assemble.py /assemble.py
RUN python /assemble.py /out

FROM scratch AS settings
ENV PATH=/usr/local/bin:/usr/bin LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    KRON_HOST=0.0.0.0 KRON_PORT=8000 KRON_MODELS=/models KRON_LOG_FORMAT=json KRON_GENERATE_KEY=/var/lib/kronmodel/keys
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="kronmodel" \
    org.opencontainers.image.description="Serve and compare ONNX models: Kronecker-structured networks and their dense twins" \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
USER 10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-I", "-S", "/usr/local/bin/kronserve-health"]
ENTRYPOINT ["tini", "--", "kronserve"]

FROM settings AS cpu
COPY --from=build /out/system /
COPY --from=build /out/packages /
COPY --from=build /out/service /
COPY deploy/image/health.py /usr/local/bin/kronserve-health
# A folder of the build context with models to put into the image; by default there are none.
ARG MODELS=deploy/image/models
COPY --chown=10001:0 ${MODELS}/ /models/

# onnxruntime-gpu contains the same files as onnxruntime, which it has to replace.
FROM build AS build-gpu
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=ca.crt,target=/run/secrets/ca.crt \
    python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['gpu'], sep='\n')" > gpu.txt \
    && pip uninstall --yes onnxruntime \
    && pip install --constraint constraints.txt --requirement gpu.txt
RUN rm -rf /out && python /assemble.py /out

FROM settings AS gpu
# The container toolkit of NVIDIA makes the driver's libraries and all GPUs available.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-gpu /out/system /
COPY --from=build-gpu /out/packages /
COPY --from=build-gpu /out/service /
COPY deploy/image/health.py /usr/local/bin/kronserve-health
ARG MODELS=deploy/image/models
COPY --chown=10001:0 ${MODELS}/ /models/

# The last stage is what a build without a target gives.
FROM cpu

# The endpoint as an image. `./build.sh image` builds it and chooses the arguments.
#
# Layers, from the one that changes least: Java and MMS; Python packages; our code, under 3 MB. Files carry one date
# (SOURCE_DATE_EPOCH), so an unchanged layer keeps its digest and is not pushed again.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS packages
ARG SOURCE_DATE_EPOCH=1577836800
ARG LOCK=image.lock
WORKDIR /build
COPY requirements/build.lock container/image/install.sh container/image/classes.txt ./
COPY requirements/${LOCK} image.lock
RUN ./install.sh /layers

# What is compiled: our endpoints for MMS's plugin interface and the walker. The compilers are left behind.
FROM packages AS compiled
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends default-jdk-headless gcc libc6-dev python3-dev
COPY container/launch/plugin plugin
RUN plugin/build.sh /opt/mme/lib/python3*/site-packages/mms/frontend/model-server.jar /build/classes && test -d /build/classes
COPY handler/build.sh handler/*.c handler/*.h handler/
COPY handler/forest/*.c handler/forest/*.h handler/forest/
COPY handler/importer/*.c handler/importer/*.h handler/importer/
COPY handler/loading/*.c handler/loading/*.h handler/loading/
COPY handler/payload/*.c handler/payload/*.h handler/payload/
COPY handler/telemetry/*.c handler/telemetry/*.h handler/telemetry/
# Whichever Python's headers there are: of its interface the stable part is used, and a base of one's own may have none.
RUN handler/build.sh /build/compiled && grep -q PyInit_sheet /build/compiled/libhandler.so

# Our own wheel, on top of what it runs on. Only what it adds to the tree becomes a layer.
FROM packages AS code
ARG SOURCE_DATE_EPOCH=1577836800
WORKDIR /build/source
COPY pyproject.toml README.md LICENSE ./
COPY container container
COPY handler handler
COPY --from=compiled /build/classes container/launch/plugin/classes
COPY --from=compiled /build/compiled/libhandler.so handler/
RUN container/image/add-code.sh /layers

FROM ${BASE_IMAGE}
COPY --from=packages /layers/java/ /
COPY --from=packages /layers/python/ /
COPY --from=code /layers/code/ /

# /tmp is the one place written to; mount a tmpfs there and run with a read-only root.
ENV PATH=/opt/mme/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    MME_HOST=0.0.0.0 \
    MME_SCRATCH=/tmp

# Nothing needs root, and nothing minds being it: SageMaker may run the image as root, and RUN_AS=0:0 builds it so.
ARG RUN_AS=10001:10001
USER ${RUN_AS}
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["mme", "health"]
ENTRYPOINT ["mme"]
CMD ["serve"]

ARG VERSION=0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
ARG BASE_IMAGE
LABEL com.amazonaws.sagemaker.capabilities.multi-models=true \
      com.amazonaws.sagemaker.capabilities.accept-bind-to-port=true \
      org.opencontainers.image.title="multi-model-endpoint" \
      org.opencontainers.image.description="Serves thousands of XGBoost models from one SageMaker endpoint, the busy ones from memory." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"

# One image for every process: `python -m ingress`, `python -m workers ROLE`, `gateway …`.
FROM python:3.11-slim-bookworm AS build
COPY ops/requirements.lock /build/
# Without pip of its own: the image's installs into it, and stays behind.
RUN python -m venv --without-pip /opt/gateway \
    && python -m pip --python /opt/gateway/bin/python install --no-cache-dir --require-hashes -r /build/requirements.lock
COPY schemas /app/schemas
COPY common /app/common
COPY ingress /app/ingress
COPY workers /app/workers
COPY ops /app/ops
COPY sandbox /app/sandbox
COPY migrations /app/migrations
# Readable to whoever runs it, whatever the umask of the checkout; compiled, as nothing is written at run time.
RUN chmod -R u=rwX,go=rX /app \
    && python -m compileall -q /app \
    && printf '#!/bin/sh\nexec python -m ops "$@"\n' > /opt/gateway/bin/gateway \
    && chmod 755 /opt/gateway/bin/gateway

FROM python:3.11-slim-bookworm
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Syncaroo Gateway" \
    org.opencontainers.image.description="Turns Syncaroo's webhooks into one listing.changed event per real change." \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.base.name="docker.io/library/python:3.11-slim-bookworm"
RUN rm -rf /usr/local/lib/python3.*/site-packages/pip* /usr/local/lib/python3.*/site-packages/setuptools* \
    /usr/local/lib/python3.*/ensurepip /usr/local/bin/pip*
COPY --from=build /opt/gateway /opt/gateway
COPY --from=build /app /app
ENV PATH=/opt/gateway/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
USER 10001:10001
EXPOSE 8080
CMD ["python", "-m", "ingress"]

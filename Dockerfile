# One image for every process: `python -m ingress`, `python -m workers ROLE`, `gateway …`.
FROM python:3.11-slim-bookworm AS build
WORKDIR /build
COPY ops/requirements.lock ./
RUN python -m venv /opt/gateway && /opt/gateway/bin/pip install --no-cache-dir --require-hashes -r requirements.lock

FROM python:3.11-slim-bookworm
ENV PATH=/opt/gateway/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
COPY --from=build /opt/gateway /opt/gateway
COPY schemas ./schemas
COPY common ./common
COPY ingress ./ingress
COPY workers ./workers
COPY ops ./ops
COPY sandbox ./sandbox
COPY migrations ./migrations
RUN printf '#!/bin/sh\nexec python -m ops "$@"\n' > /opt/gateway/bin/gateway && chmod 755 /opt/gateway/bin/gateway
USER 10001:10001
EXPOSE 8080
CMD ["python", "-m", "ingress"]

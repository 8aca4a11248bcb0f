# manifuse in a container: `docker build -t manifuse .`, then one of
#
#   docker run -p 5080:5080 manifuse serve --upstream http://registry.example:5000
#   docker run -p 5080:5080 -v ./manifuse.toml:/etc/manifuse/manifuse.toml:ro manifuse
#
# It runs with --read-only --cap-drop ALL: only the volume is written to.

FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv --without-pip /opt/manifuse
COPY LICENSE README.md pyproject.toml ./
COPY proxy proxy
RUN python -m pip --python /opt/manifuse/bin/python install --no-cache-dir --disable-pip-version-check .
RUN mkdir -p /var/lib/manifuse

FROM python:3.13-slim
LABEL org.opencontainers.image.title="manifuse" \
      org.opencontainers.image.description="One name, every architecture: merges arch-specific images at pull time" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="docker.io/library/python:3.13-slim"
COPY --from=build /opt/manifuse /opt/manifuse
COPY --from=build --chown=65532:65532 /var/lib/manifuse /var/lib/manifuse
COPY config/manifuse.toml /etc/manifuse/manifuse.toml

# The environment wins over the file: in a container, other addresses and another folder than on a desk.
ENV PATH="/opt/manifuse/bin:$PATH" \
    PYTHONDONTWRITEBYTECODE="1" \
    MANIFUSE_LISTEN="0.0.0.0:5080" \
    MANIFUSE_ADMIN_LISTEN="0.0.0.0:5081" \
    MANIFUSE_CACHE__DIR="/var/lib/manifuse"

# Numeric, so that Kubernetes can check runAsNonRoot.
USER 65532:65532
VOLUME ["/var/lib/manifuse"]
EXPOSE 5080 5081
STOPSIGNAL SIGTERM
# http.client rather than urllib: it takes no notice of http_proxy.
HEALTHCHECK --interval=30s --timeout=3s --start-period=10s CMD ["python", "-c", "from http.client import HTTPConnection as C; c = C('127.0.0.1', 5081, timeout=2); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["manifuse"]
CMD ["serve", "--config", "/etc/manifuse/manifuse.toml"]

# manifuse in a container: `docker build -t manifuse .`, then one of
#
#   docker run -p 5080:5080 manifuse serve --upstream http://registry.example:5000
#   docker run -p 5080:5080 -v ./manifuse.toml:/etc/manifuse/manifuse.toml:ro manifuse
#
# It runs with --read-only --cap-drop ALL: only the volume is written to.

FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv --without-pip /opt/manifuse && python -m venv --without-pip /opt/build
# Nothing is installed that `make lock` hasn't seen, and nothing is built but manifuse itself.
COPY requirements requirements
RUN python -m pip --python /opt/manifuse/bin/python install --no-cache-dir --require-hashes --only-binary :all: -r requirements/run.lock
RUN python -m pip --python /opt/build/bin/python install --no-cache-dir --require-hashes --only-binary :all: -r requirements/build.lock
COPY LICENSE README.md pyproject.toml ./
COPY proxy proxy
RUN python -m pip --python /opt/build/bin/python wheel --no-deps --no-build-isolation --wheel-dir dist .
RUN python -m pip --python /opt/manifuse/bin/python install --no-deps --no-index dist/*.whl
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

# The environment wins over the file: in a container, other addresses and another folder than on a desk. As the admin
# port isn't on loopback then, it answers probes alone unless there is MANIFUSE_ADMIN_TOKEN_FILE.
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
# It asks where the file or the environment lets the admin port listen; a flag behind `serve` it can't know.
HEALTHCHECK --interval=30s --timeout=3s --start-period=10s CMD ["python", "-m", "proxy.healthy", "/etc/manifuse/manifuse.toml"]
ENTRYPOINT ["manifuse"]
CMD ["serve", "--config", "/etc/manifuse/manifuse.toml"]

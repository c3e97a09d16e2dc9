# Build with `docker build -t callvault .`; docs/operations.md says how to run it and what was tried of it.
# Every package that enters the image is named with its hash in requirements/.

FROM python:3.11-slim AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1

# The tools that make the wheel stay in this stage.
COPY requirements/build.txt requirements/runtime.txt requirements/
RUN python -m venv /opt/wheel \
    && /opt/wheel/bin/pip install --require-hashes -r requirements/build.txt
RUN python -m venv /opt/callvault \
    && /opt/callvault/bin/pip install --require-hashes -r requirements/runtime.txt

COPY pyproject.toml README.md LICENSE config.toml ./
COPY vault vault
COPY cli cli
RUN /opt/wheel/bin/pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && /opt/callvault/bin/pip install --no-deps --no-index dist/callvault-*.whl \
    && /opt/callvault/bin/pip check
COPY docker/healthcheck.py /opt/callvault/healthcheck.py


FROM python:3.11-slim
RUN groupadd --system --gid 10001 callvault \
    && useradd --system --uid 10001 --gid callvault --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin callvault \
    && install -d -o callvault -g callvault -m 0700 /data
COPY --from=build /opt/callvault /opt/callvault

# The image is never written to, so it runs with a read-only root file system: state is in /data, settings in
# /etc/callvault/config.toml, which names /data, and S3 credentials in the environment.
ENV PATH=/opt/callvault/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8080
# Uploads under way get server.drain_grace to end; stop with a longer timeout than that.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["/opt/callvault/bin/python", "/opt/callvault/healthcheck.py", "/etc/callvault/config.toml"]
ENTRYPOINT ["callvault"]
CMD ["serve", "--config", "/etc/callvault/config.toml"]

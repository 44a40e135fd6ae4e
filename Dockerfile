# The image of one service; `python -m deployment.images build` makes all of them, and `offline` does it without a registry.
# The classic builder is enough. What a site's own network needs is said in arguments of the first stage, and stays in it.
ARG PYTHON_IMAGE=python:3.12-slim
ARG SERVICE=public_api


FROM ${PYTHON_IMAGE} AS packages
ARG SERVICE
# The text of a certificate authority that pip is to trust besides the public ones; or the file site-ca.pem in the context.
ARG SITE_CA=
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
# For a build without a network: PIP_NO_INDEX=1, PIP_FIND_LINKS=/build, and the wheels in the folder wheels of the context.
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS
WORKDIR /build
COPY pyproject.toml constraints.txt deployment/requirements.py deployment/slimming.py wheel[s] site-ca.pe[m] ./
RUN python requirements.py "${SERVICE}" > requirements.txt \
    && printf '%s\n' "${SITE_CA}" >> site-ca.pem \
    && cat /etc/ssl/certs/ca-certificates.crt site-ca.pem > trusted.pem \
    && python -m venv --without-pip /opt/venv \
    && PIP_CERT=/build/trusted.pem pip --python /opt/venv install --no-cache-dir --no-compile --only-binary=:all: \
        --constraint constraints.txt --requirement requirements.txt \
    && python slimming.py /opt/venv/lib \
    && /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib
WORKDIR /app
COPY contracts contracts
COPY service_kit service_kit
COPY ${SERVICE} ${SERVICE}
# Whatever the umask of the checkout was, the service may read and not write.
RUN /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /app \
    && chmod -R u=rwX,go=rX /app


FROM ${PYTHON_IMAGE} AS service
# A new named volume at /data takes the owner of the folder.
RUN groupadd --gid 10001 inference \
    && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin \
        inference \
    && install --directory --owner=inference --group=inference /data
COPY --from=packages /opt/venv /opt/venv
COPY --from=packages /app /app
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    LOG_FORMAT=json
WORKDIR /app
USER 10001:10001
STOPSIGNAL SIGTERM


FROM service AS public_api
LABEL org.opencontainers.image.description="The HTTP API that users see"
ENV HOST=0.0.0.0 PORT=8000
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-m", "service_kit.healthcheck", "http://127.0.0.1:8000/health/live"]
CMD ["python", "-m", "public_api"]


FROM service AS private_api
LABEL org.opencontainers.image.description="Tasks, models and files; the one writer of the database"
ENV HOST=0.0.0.0 PORT=7000
EXPOSE 7000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-m", "service_kit.healthcheck", "http://127.0.0.1:7000/health/live"]
CMD ["python", "-m", "private_api"]


FROM service AS job_consumer
LABEL org.opencontainers.image.description="Takes tasks from the queue and runs models in containers"
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-m", "job_consumer.alive"]
CMD ["python", "-m", "job_consumer"]


FROM service AS online_gateway
LABEL org.opencontainers.image.description="Answers at once, with models that workers hold in memory"
ENV HOST=0.0.0.0 PORT=5002 WORKER_HOST=0.0.0.0 WORKER_PORT=5010 DATA_DIR=/data
EXPOSE 5002 5010
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-m", "service_kit.healthcheck", "http://127.0.0.1:5002/health/live"]
CMD ["python", "-m", "online_gateway"]


# No health check: its gateway hears from it every second, and it ends when a call never comes back.
FROM service AS online_worker
LABEL org.opencontainers.image.description="Holds models in memory for an online gateway"
CMD ["python", "-m", "online_worker"]


FROM ${SERVICE}
ARG SERVICE
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="InferenceServer ${SERVICE}" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"

# A worker's image: dependencies and wheel are built in one stage, the other holds only the result and a user.
FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /opt/tutormax
ENV PATH=/opt/tutormax/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Dependencies first: this layer lasts until pyproject.toml changes.
COPY pyproject.toml ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
    > requirements.txt && pip install -r requirements.txt
COPY models ./models
COPY tables ./tables
COPY agents ./agents
COPY tutormax_streams ./tutormax_streams
RUN pip install --no-deps .

FROM python:3.11-slim
# A number, so that Kubernetes can check that it is not root.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin tutormax \
    && install --directory --owner=tutormax /var/lib/tutormax
COPY --from=build /opt/tutormax /opt/tutormax
ENV PATH=/opt/tutormax/bin:$PATH PYTHONUNBUFFERED=1 TZ=UTC TUTORMAX_DATA_DIR=/var/lib/tutormax
WORKDIR /var/lib/tutormax
# Each container has a volume of its own unless it is given one: tables must never be shared between workers.
VOLUME /var/lib/tutormax
USER 10001
EXPOSE 6066
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.getenv(\"TUTORMAX_HEALTH_PORT\") or os.getenv(\"TUTORMAX_WEB_PORT\") or 6066}/livez', timeout=4)"]
# SIGTERM drains and ends within 30 s; give it that long: docker stop --time 35.
STOPSIGNAL SIGTERM
ENTRYPOINT ["tutormax-streams"]
CMD ["worker"]

# The image of shipper: the wheel of this checkout with the extra "all", run by a user without privileges.
#
#   docker build -t shipper .
#   docker run --rm shipper demo
#   docker run -v ./shipper.toml:/etc/shipper/shipper.toml:ro -v shipper-state:/var/lib/shipper shipper
#
# A relative [state] path in that file is relative to /etc/shipper, which is read-only: write
# path = "/var/lib/shipper/shipper.db". Where pip needs another index or authority, hand on its own variables:
#   docker build --build-arg PIP_INDEX_URL --build-arg PIP_CERT …
# They are known to the first stage only and are not part of the image.
ARG BASE=python:3.13-slim-trixie

FROM ${BASE} AS build
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
ARG PIP_CERT
ARG PIP_DEFAULT_TIMEOUT
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PIP_QUIET=1
WORKDIR /source
COPY constraints.txt ./
RUN python3 -m venv /opt/build && /opt/build/bin/pip install -c constraints.txt build hatchling
RUN python3 -m venv /opt/shipper
COPY . .
RUN /opt/build/bin/python -m build --wheel --no-isolation --outdir /wheels \
 && /opt/shipper/bin/pip install -c constraints.txt "$(ls /wheels/*.whl)[all]" \
 && /opt/shipper/bin/python -m compileall -q /opt/shipper/lib \
 && /opt/shipper/bin/pip uninstall --yes pip

FROM ${BASE}
LABEL org.opencontainers.image.title="shipper" \
      org.opencontainers.image.description="Ships Amazon Aurora and RDS Database Activity Streams into the SIEM you have" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 shipper \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/shipper --shell /usr/sbin/nologin shipper \
 && install -d -o shipper -g shipper -m 0700 /var/lib/shipper
COPY --from=build /opt/shipper /opt/shipper
ENV PATH=/opt/shipper/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 SHIPPER_LISTEN=0.0.0.0:9686
USER 10001:10001
WORKDIR /var/lib/shipper
VOLUME /var/lib/shipper
EXPOSE 9686
# The image has no curl; the port is that of SHIPPER_LISTEN. Liveness only: a held output is not a sick process.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["python", "-c", \
  "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['SHIPPER_LISTEN'].rpartition(':')[2] + '/health', timeout=4)"]
ENTRYPOINT ["shipper"]
CMD ["run", "/etc/shipper/shipper.toml"]

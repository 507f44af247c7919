# One image for the relay, the agent and every command: `docker run IMAGE serve`, `http …`, `start`, `keys …`.
#
# The first stage installs into an environment of its own, the second holds that environment and nothing else: no
# compiler, no package manager of ours, no root. The root file system may be read-only; what is kept is in /data.

ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
# 1: the rooms of the data path are compiled.
ARG RELAY_COMPILED=0
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends binutils \
      $([ "$RELAY_COMPILED" != 1 ] || echo gcc libc6-dev) && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# What the relay needs changes less often than the relay: a change of the code alone installs none of it again.
COPY pyproject.toml deploy/compose/requirements.py ./
RUN python requirements.py server >requirements.txt \
 && python -m venv --without-pip /opt/relay \
 && pip --python /opt/relay/bin/python install --no-compile --only-binary :all: -r requirements.txt
COPY README.md LICENSE ./
COPY scripts/compiling.py scripts/
COPY relay relay
COPY migrations migrations
# Types, sources and symbols of compiled modules, and tests are of no use to a running relay.
RUN pip --python /opt/relay/bin/python install --no-compile --no-deps . \
 && find /opt/relay \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' -o -name '*.[ch]' \) -delete \
 && find /opt/relay/lib -type d \( -name tests -o -name testing -o -name test \) -prune -exec rm -rf {} + \
 && find /opt/relay/lib -name '*.so' -exec strip --strip-unneeded {} +
# Bytecode is made now, since nothing can be written later: of what was installed, and of what that takes from Python's
# own library, which comes without.
ENV PYTHONPYCACHEPREFIX=/opt/relay/bytecode
RUN /opt/relay/bin/python -m compileall -q -j 0 -x '/pygments/(lexers|styles)/|/dialects/(mssql|mysql|oracle)/' \
      --invalidation-mode unchecked-hash /opt/relay/lib \
 && cd / && export RELAY_DATA=/tmp/relay && env -u PYTHONDONTWRITEBYTECODE /opt/relay/bin/relay db upgrade >/dev/null \
 && env -u PYTHONDONTWRITEBYTECODE /opt/relay/bin/python -c "import relay.agent, relay.cli, relay.node, relay.node.serve"

FROM python:${PYTHON}-slim
LABEL org.opencontainers.image.title="relay" \
      org.opencontainers.image.description="A self-hosted tunnel relay, and its agent" \
      org.opencontainers.image.licenses="Apache-2.0"
# /data is the relay's; /secrets is there for what the containers of a compose file make for each other.
RUN install -d -o 65532 -g 65532 -m 0700 /data /secrets
COPY --from=build /opt/relay /opt/relay
ENV PATH=/opt/relay/bin:$PATH HOME=/data RELAY_DATA=/data PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    PYTHONPYCACHEPREFIX=/opt/relay/bytecode
USER 65532:65532
WORKDIR /data
VOLUME ["/data"]
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
ENTRYPOINT ["relay"]
CMD ["serve"]

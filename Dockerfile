# An image whose main process is an application on a dkfs mount:
#
#     docker run --device /dev/fuse --cap-add SYS_ADMIN -v deltas:/deltas IMAGE CMD ...
#
# Debian's Python throughout: the virtual environment is made in one stage and used in the other.
FROM debian:bookworm-slim AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        ca-certificates gcc libc6-dev libfuse3-dev pkg-config python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY dkfs dkfs
RUN python3 -m venv /usr/local/lib/dkfs \
    && /usr/local/lib/dkfs/bin/pip install --no-cache-dir --constraint constraints.txt . \
    && /usr/local/lib/dkfs/bin/pip uninstall --yes pip setuptools

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends fuse3 mount python3 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /usr/local/lib/dkfs /usr/local/lib/dkfs
COPY mount-helpers/mount.fuse.dkfs mount-helpers/umount.fuse.dkfs /sbin/
RUN ln -s ../lib/dkfs/bin/dkfs /usr/local/bin/dkfs
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# dkfs's defaults: the application's files are mounted at /data, their history is in /deltas/db.
RUN mkdir /data /deltas
VOLUME /deltas
# dkfs forwards signals to the application and waits until everything is recorded: give it time to.
STOPSIGNAL SIGTERM
ENTRYPOINT ["dkfs", "run", "--"]
CMD ["sh"]

# spu-perf and the other commands, with the C compiler that they need.
#
#   docker build -t spu-ir .
#   docker run --rm -v "$PWD/reports:/work/reports" spu-ir spu-perf --task bert-torch-fp32
FROM python:3.12-slim

RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

# The lock as constraints: what is installed has its versions, and nothing else of it is installed.
COPY . /src
RUN pip install --no-cache-dir --constraint /src/requirements/lock.txt '/src[perf]' \
    && rm -rf /src

# Not root, and a folder for reports that a volume may take the place of.
RUN useradd --create-home spu && mkdir --parents /work/reports && chown -R spu /work
USER spu
WORKDIR /work

# The card that spu-smi shows.
ENV SPU_IR_DEVICES=s30

CMD ["spu-perf", "--help"]

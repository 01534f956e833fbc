# An image of hybridsearch that serves indexes. It runs as the user "nobody" on a read-only file system, and compiles
# nothing when it starts. Run these commands in the folder of the repository:
#
#     docker build -t hybridsearch .
#     docker run --rm -v "$PWD/papers.jsonl:/papers.jsonl:ro" -v index:/index hybridsearch \
#         index /papers.jsonl --index /index/papers
#     docker run --rm --read-only -v index:/index -e HYBRIDSEARCH_TOKENS=read:TOKEN,write:TOKEN -p 127.0.0.1:8000:8000 \
#         hybridsearch serve /index/papers --host 0.0.0.0
#
# For indexes with models: docker build --build-arg EXTRAS=serve,models -t hybridsearch .

FROM python:3.11-slim AS build
ARG EXTRAS=serve
RUN python -m venv /opt/hybridsearch
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY hybridsearch hybridsearch
COPY adapters adapters
RUN /opt/hybridsearch/bin/pip install --no-cache-dir -c constraints.txt ".[$EXTRAS]"
# The compiled search loops are next to the package, where only root can write. They fit the processor of this machine.
RUN /opt/hybridsearch/bin/hybridsearch warmup

FROM python:3.11-slim
COPY --from=build /opt/hybridsearch /opt/hybridsearch
# The user "nobody" has no home, so vectors of models are not kept. To keep them, set this to a folder on a volume.
ENV PATH=/opt/hybridsearch/bin:$PATH HYBRIDSEARCH_CACHE=off PYTHONUNBUFFERED=1
RUN mkdir /index && chown nobody:nogroup /index
USER nobody
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/ready', timeout=4)"]
ENTRYPOINT ["hybridsearch"]
CMD ["doctor"]

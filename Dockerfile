# docker build -t randprune . && docker run --rm randprune demo
FROM python:3.12-slim

WORKDIR /opt/randprune
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
RUN pip install --no-cache-dir -c constraints.txt . && useradd --create-home --uid 1000 pruner

USER 1000
WORKDIR /home/pruner
ENTRYPOINT ["randprune"]
CMD ["--help"]

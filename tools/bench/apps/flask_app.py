"""Flask, for the WSGI servers (gunicorn and granian): plain synchronous handlers and generators."""

from __future__ import annotations

from flask import Flask, Response

from tools.bench import work

app = Flask(__name__)


@app.get("/")
def hello() -> Response:
    return Response(work.HELLO, mimetype="text/plain")


@app.get("/chunks8k")
def chunks8k() -> Response:
    return Response(work.repeat(work.CHUNK_8K))


@app.get("/chunks64k")
def chunks64k() -> Response:
    return Response(work.repeat(work.CHUNK_64K))


@app.get("/lines")
def lines() -> Response:
    return Response(work.repeat(work.LINE))


@app.get("/first")
def first() -> Response:
    return Response(work.first())


@app.get("/fresh")
def fresh() -> Response:
    return Response(work.fresh())


@app.get("/ticks")
def ticks() -> Response:
    return Response(work.ticks())

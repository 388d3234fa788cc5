"""The FastAPI "hello" server: ``python -m benchmarks.servers.hello_fastapi LOOP``.

A route with a parameter and an answer in JSON, under uvicorn with httptools.
"""

from __future__ import annotations

import sys

from fastapi import FastAPI

from .hello_uvicorn import serve
from .serve import run_server

app = FastAPI(openapi_url=None)


@app.get("/")
async def hello(name: str = "world") -> dict[str, str]:
    """Answer every request alike."""
    return {"hello": name}


if __name__ == "__main__":
    run_server(sys.argv[1], serve(application=app))

"""FastAPI with pydantic models and FastStream's RabbitMQ broker, on uvicorn with uvloop and httptools."""

import hashlib
import hmac
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, Header, HTTPException, Request
from faststream.rabbit import RabbitBroker, RabbitExchange
from pydantic import BaseModel

from benchmarks.variants.webhook import Webhook

KEY = os.environ["BENCH_KEY"].encode()
TOKEN = os.environ["BENCH_TOKEN"]
broker = RabbitBroker(os.environ["AMQP_URL"])
exchange = RabbitExchange("bench", declare=False)


class Wanted(BaseModel):
    """What is published."""

    connectionId: int
    url: str


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """The broker, before the first request."""
    await broker.start()
    yield
    await broker.stop()


app = FastAPI(lifespan=lifespan)


@app.post("/update")
async def update(
    webhook: Webhook, request: Request, authorization: Annotated[str | None, Header()] = None
) -> dict[str, Any]:
    """Check, publish, answer."""
    if authorization != f"Bearer {TOKEN}":
        raise HTTPException(401)
    body = json.loads(await request.body())
    body.pop("hash")
    compact = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    if not hmac.compare_digest(webhook.hash, hmac.new(KEY, compact, hashlib.sha256).hexdigest()):
        raise HTTPException(403)
    wanted = Wanted(connectionId=webhook.connectionId, url=webhook.metaData.apiUrl)
    await broker.publish(wanted, exchange=exchange, routing_key="bench", persist=True, mandatory=True)
    return {"status": "accepted"}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["BENCH_PORT"]), access_log=False, log_level="warning")

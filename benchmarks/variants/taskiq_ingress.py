"""aiohttp with a pydantic model that hands a task to taskiq's RabbitMQ broker, confirmed; on uvloop."""
# mypy: ignore-errors
# Its libraries are not installed beside ours.

import hashlib
import hmac
import json
import os

import uvloop
from aiohttp import web
from pydantic import ValidationError
from taskiq_aio_pika import AioPikaBroker, Exchange, Queue

from benchmarks.variants.webhook import Webhook

KEY = os.environ["BENCH_KEY"].encode()
TOKEN = os.environ["BENCH_TOKEN"]
MAX_BODY = 64 * 1024
broker = AioPikaBroker(
    os.environ["AMQP_URL"],
    exchange=Exchange(name="bench", declare=False),
    task_queues=[Queue(name="bench", declare=False)],
)


@broker.task("wanted")
async def wanted(connection_id: int, url: str) -> None:
    """Done elsewhere."""


async def update(request: web.Request) -> web.Response:
    """Check, publish, answer."""
    if request.headers.get("Authorization") != f"Bearer {TOKEN}":
        raise web.HTTPUnauthorized
    body = json.loads(await request.read())
    try:
        webhook = Webhook.model_validate(body)
    except ValidationError:
        raise web.HTTPUnprocessableEntity from None
    body.pop("hash")
    compact = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    if not hmac.compare_digest(webhook.hash, hmac.new(KEY, compact, hashlib.sha256).hexdigest()):
        raise web.HTTPForbidden
    await wanted.kiq(webhook.connectionId, webhook.metaData.apiUrl)
    return web.json_response({"status": "accepted"})


async def connected(_: web.Application) -> None:
    """The broker, before the first request."""
    await broker.startup()


async def disconnected(_: web.Application) -> None:
    """After the last one."""
    await broker.shutdown()


def main() -> None:
    """Serve."""
    app = web.Application(client_max_size=MAX_BODY)
    app.on_startup.append(connected)
    app.on_cleanup.append(disconnected)
    app.router.add_post("/update", update)
    loop = uvloop.new_event_loop()
    web.run_app(app, host="127.0.0.1", port=int(os.environ["BENCH_PORT"]), access_log=None, print=None, loop=loop)


if __name__ == "__main__":
    main()

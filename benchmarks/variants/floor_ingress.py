"""The floor: what a good engineer writes in an afternoon. aiohttp, aio-pika with one channel, json, HMAC."""

import hashlib
import hmac
import json
import os

import aio_pika
from aiohttp import web

KEY = os.environ["BENCH_KEY"].encode()
TOKEN = os.environ["BENCH_TOKEN"]


async def update(request: web.Request) -> web.Response:
    """Check, publish, answer."""
    if request.headers.get("Authorization") != f"Bearer {TOKEN}":
        raise web.HTTPUnauthorized
    body = json.loads(await request.read())
    given = body.pop("hash", "")
    compact = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    if not hmac.compare_digest(given, hmac.new(KEY, compact, hashlib.sha256).hexdigest()):
        raise web.HTTPForbidden
    message = aio_pika.Message(
        json.dumps({"connectionId": body["connectionId"], "url": body["metaData"]["apiUrl"]}).encode(),
        content_type="application/json",
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )
    await request.app["exchange"].publish(message, "bench", mandatory=True)
    return web.json_response({"status": "accepted"})


async def connected(app: web.Application) -> None:
    """The broker, before the first request."""
    app["connection"] = await aio_pika.connect_robust(os.environ["AMQP_URL"])
    channel = await app["connection"].channel(on_return_raises=True)
    app["exchange"] = await channel.get_exchange("bench", ensure=False)


def main() -> None:
    """Serve."""
    app = web.Application()
    app.on_startup.append(connected)
    app.router.add_post("/update", update)
    web.run_app(app, host="127.0.0.1", port=int(os.environ["BENCH_PORT"]), access_log=None, print=None)


if __name__ == "__main__":
    main()

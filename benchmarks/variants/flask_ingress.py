"""Flask that hands a task to Celery, confirmed: `gunicorn` with one worker of sixteen threads."""

import hashlib
import hmac
import json
import os
from typing import Any

from celery import Celery
from flask import Flask, abort, request
from kombu import Exchange, Queue

KEY = os.environ["BENCH_KEY"].encode()
TOKEN = os.environ["BENCH_TOKEN"]
celery = Celery(broker=os.environ["AMQP_URL"])
celery.conf.update(
    broker_transport_options={"confirm_publish": True},
    task_queues=[
        Queue("bench", Exchange("bench", "topic"), routing_key="#", queue_arguments={"x-queue-type": "quorum"})
    ],
    task_default_queue="bench",
    task_ignore_result=True,
)
app = Flask(__name__)


@celery.task(name="wanted", ignore_result=True)
def wanted(connection_id: int, url: str) -> None:
    """Done elsewhere."""


@app.post("/update")
def update() -> dict[str, Any]:
    """Check, publish, answer."""
    if request.headers.get("Authorization") != f"Bearer {TOKEN}":
        abort(401)
    body = json.loads(request.get_data())
    given = body.pop("hash", "")
    compact = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    if not hmac.compare_digest(given, hmac.new(KEY, compact, hashlib.sha256).hexdigest()):
        abort(403)
    wanted.apply_async((body["connectionId"], body["metaData"]["apiUrl"]))
    return {"status": "accepted"}

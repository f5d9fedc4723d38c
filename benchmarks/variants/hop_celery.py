"""Celery with two worker processes: a task that publishes through kombu, confirmed, and is acked late."""
# mypy: ignore-errors
# Its libraries are not installed beside ours.

import asyncio
import os
import signal
import threading
import warnings
from pathlib import Path
from typing import Any

from billiard import active_children
from celery import Celery, Task
from celery.exceptions import SecurityWarning
from celery.signals import worker_ready
from celery.worker.request import Request
from kombu import Queue

from benchmarks.variants.hops import PREFETCH, SOURCE, TARGET, counted, tell
from benchmarks.variants.timed import URL

PROCESSES = 2
TICKS = os.sysconf("SC_CLK_TCK")

app = Celery(broker=URL)
app.conf.update(
    broker_transport_options={"confirm_publish": True},
    task_queues=[Queue(SOURCE, exchange="", routing_key=SOURCE, queue_arguments={"x-queue-type": "quorum"})],
    task_create_missing_queues=False,
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=PREFETCH // PROCESSES,
    worker_redirect_stdouts=False,
)
counts = {"done": 0}
said: dict[str, float] = {}


class Counted(Request):
    """Acks are counted where they are made, in the worker's first process."""

    def acknowledge(self) -> None:
        """Ack."""
        super().acknowledge()
        counts["done"] += 1


class Hop(Task):
    """With those requests."""

    Request = Counted


@app.task(name="hop", base=Hop)
def hop(body: str) -> None:
    """One hop."""
    headers = {"schema": "WebhookReceived", "attempt": 0}
    with app.producer_pool.acquire(block=True) as producer:
        producer.publish(
            body.encode(),
            exchange=TARGET,
            routing_key=TARGET,
            headers=headers,
            content_type="application/json",
            content_encoding="utf-8",
            delivery_mode=2,
            mandatory=True,
        )


def cpu_seconds() -> float:
    """Of the first process and those that it started."""
    return sum(_cpu_seconds(pid) for pid in (os.getpid(), *(child.pid for child in active_children())))


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@worker_ready.connect
def watch(**_: Any) -> None:
    """Count beside the worker, then have it end as an operator does."""

    def count() -> None:
        try:
            said.update(asyncio.run(counted(lambda: counts["done"], cpu_seconds)))
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=count).start()


def main() -> None:
    """Hop."""
    alone = ("--without-gossip", "--without-mingle", "--without-heartbeat")
    worker = ("worker", "--loglevel", "error", "--pool", "prefork", "--concurrency", str(PROCESSES))
    warnings.filterwarnings("ignore", category=SecurityWarning)  # about who runs it
    try:
        app.worker_main(["--quiet", *worker, *alone])
    except SystemExit as end:
        if end.code:
            raise
    tell(said, counts["done"])


if __name__ == "__main__":
    main()

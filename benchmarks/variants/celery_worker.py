"""Celery's half of the pipeline: requests, SQLAlchemy's ORM on PostgreSQL, and kombu for the events.

A task reads its webhook's page, writes rows where they differ in one transaction, and publishes the changes, each
confirmed; it is acked when that is done. `celery --app benchmarks.variants.celery_worker worker`.
"""
# mypy: ignore-errors
# Its libraries are not installed beside ours.

import os
from typing import Any

import requests
from celery import Celery
from celery.signals import worker_init
from kombu import Exchange, Queue
from sqlalchemy import create_engine, make_url
from sqlalchemy.orm import sessionmaker

from benchmarks.variants.floor_rows import Base, change, items_of, known

ANSWER_SECONDS = 30

app = Celery(broker=os.environ["AMQP_URL"])
app.conf.update(
    broker_transport_options={"confirm_publish": True},
    task_queues=[
        Queue("bench", Exchange("bench", "topic"), routing_key="#", queue_arguments={"x-queue-type": "quorum"})
    ],
    task_default_queue="bench",
    task_acks_late=True,
    task_ignore_result=True,
)
engine = create_engine(make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql+psycopg"))
begin = sessionmaker(engine).begin
session = requests.Session()
session.headers["Authorization"] = f"Bearer {os.environ['BENCH_TOKEN']}"


@worker_init.connect
def prepare(**_: Any) -> None:
    """The table; no connection is left for the worker's processes to share."""
    Base.metadata.create_all(engine)
    engine.dispose()


@app.task(name="wanted")
def wanted(_: int, url: str) -> None:
    """Read, write, tell."""
    answer = session.get(url, timeout=ANSWER_SECONDS)
    answer.raise_for_status()
    items = items_of(url, answer.json())
    with begin() as writing:
        changes = change(writing.scalars(known(items)), items, writing.add)
    tell(changes)


def tell(changes: list[dict[str, Any]]) -> None:
    """Every change is persistent and confirmed; kombu waits for one confirm before it publishes the next."""
    with app.producer_pool.acquire(block=True) as producer:
        for one in changes:
            producer.publish(
                one,
                exchange="events",
                routing_key="listing.changed",
                serializer="json",
                delivery_mode=2,
                mandatory=True,
            )

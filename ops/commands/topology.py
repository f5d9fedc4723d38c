"""`gateway topology`: exchanges, routing keys, queues and who reads them."""

from __future__ import annotations

from typing import Any

import typer

from common.broker.topology import EXCHANGES, Queue, diagram, event_queues, work_queues
from common.settings import RetrySettings, load
from ops.terminal import AsJson, print_json

EPILOG = "Example: [bold]gateway topology --json[/bold]"


def topology(as_json: AsJson = False) -> None:
    """Print what `gateway setup` declares on the broker."""
    (retry,) = load(RetrySettings)
    if not as_json:
        print(diagram(retry.retry_delays))
        return
    queues = [*work_queues(retry.retry_delays), *event_queues()]
    print_json({"exchanges": EXCHANGES, "queues": [_shown(queue) for queue in queues]})


def _shown(queue: Queue) -> dict[str, Any]:
    bindings = [{"exchange": one.exchange, "routingKey": one.key} for one in queue.bindings]
    return {"name": queue.name, "bindings": bindings, "reader": queue.reader, "arguments": queue.arguments}


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(epilog=EPILOG)(topology)

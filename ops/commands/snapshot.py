"""`gateway snapshot`: the state of every listing, into one queue."""

from __future__ import annotations

import asyncio

import typer

from common.errors import Permanent, Retryable
from ops.choosing import Connection, Kind, Location
from ops.sending import NotSent, To, outlet
from ops.terminal import AsJson, counted, out, print_json, progress
from schemas.messages import SnapshotRequested
from workers.relay.snapshot_rules import request_in
from workers.relay.snapshots import Snapshots
from workers.relay.store.snapshots import SnapshotStore

EPILOG = "Example: [bold]gateway snapshot --to my-team.listings --connection 99[/bold]"


def snapshot(
    to: To, connection: Connection = None, location: Location = None, kind: Kind = None, as_json: AsJson = False
) -> None:
    """Send every listing's state into a queue as listing.snapshot, deleted ones too, then one snapshot.completed.

    Bind the queue to syncaroo.events first: then live events follow without a
    gap, and of each listing the highest version is the truth. Twice does no
    harm. Reads DATABASE_URL, sends to EVENTS_AMQP_URL (or AMQP_URL). A service
    asks for the same by a message to the queue syncaroo.snapshot.
    """
    try:
        request = request_in(
            SnapshotRequested(to=to, connection_id=connection, location_id=location, attribute_type=kind)
        )
    except Permanent as error:
        raise typer.BadParameter(error.detail) from error
    listings = asyncio.run(_send(request))
    if as_json:
        print_json({"queue": to, "snapshotId": request.snapshot_id, "listings": listings})
    else:
        were_sent = counted(listings, "listing", "was sent", "were sent")
        out.print(f"{were_sent} to {to} (snapshot {request.snapshot_id})", markup=False)


async def _send(request: SnapshotRequested) -> int:
    sent = 0

    def note(number: int) -> None:
        nonlocal sent
        sent = number
        show(number)

    async with outlet() as opened:
        listings = SnapshotStore(opened.store)
        with progress("listings", await listings.count(request)) as show:
            try:
                number = await Snapshots(listings, opened.open_way, opened.source).send_all(request, note)
            except (Retryable, Permanent) as error:
                had = f" {counted(sent, 'listing', 'was', 'were')} sent." if sent else ""
                raise NotSent(opened.words(error, request.to) + had) from error
        await opened.warn_of_loss(request.to, number + 1)  # snapshot.completed is one, too
    return number


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(epilog=EPILOG)(snapshot)

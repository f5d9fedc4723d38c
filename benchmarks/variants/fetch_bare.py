"""aiohttp's client that reads pages; with `json` as its argument it decodes them, else it does nothing with them."""

import json
import os
import sys

import aiohttp
import uvloop

from benchmarks.variants.timed import timed

IN_FLIGHT = 8
URL = os.environ.get("BENCH_URL", "")
HEADERS = {"Authorization": "Bearer access-1", "Accept": "application/json"}


async def main(decode: bool) -> None:
    """Ask."""
    async with aiohttp.ClientSession() as session:

        async def one() -> None:
            async with session.get(URL, headers=HEADERS) as answer:
                body = await answer.read()
            if decode and len(json.loads(body)["data"]) != 100:
                raise AssertionError("not the page")

        await timed(one, IN_FLIGHT)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1:] == ["json"]))

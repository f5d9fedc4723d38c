"""Puts the stand-in together: one application of API, OAuth, pages and control; no state outside it."""

from collections.abc import AsyncIterator

from aiohttp import web

from sandbox import api, control, oauth, pages, platform
from sandbox.config import SandboxConfig
from sandbox.control import OPERATIONS
from sandbox.hashing import check_recipe
from sandbox.operations import Operations
from sandbox.platform import PLATFORM, Platform
from sandbox.state import SANDBOX, Sandbox


def create_app(config: SandboxConfig) -> web.Application:
    """A stand-in that must be served at `config.url`. Raises ValueError for an unknown hash recipe."""
    if config.hash_recipe:
        check_recipe(config.hash_recipe)
    app = web.Application(middlewares=[control.errors])
    app[SANDBOX] = Sandbox.build(config)
    app.add_routes([*api.routes(), *oauth.routes(), *platform.routes(), *control.routes(), *pages.routes()])
    app.cleanup_ctx.append(_running)
    return app


async def _running(app: web.Application) -> AsyncIterator[None]:
    sandbox = app[SANDBOX]
    app[PLATFORM] = Platform(sandbox)
    app[OPERATIONS] = Operations(sandbox, app[PLATFORM])
    app[OPERATIONS].live(sandbox.config.change_every)
    if sandbox.config.check_every > 0:
        app[PLATFORM].keep_checking(sandbox.config.check_every)
    yield
    await app[OPERATIONS].close()

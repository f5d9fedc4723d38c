"""The pages of a user's account. A connection is revoked in two steps, each a form: works without script."""

from __future__ import annotations

from aiohttp import web
from aiohttp_session import Session, get_session

from common.logs import get_logger
from common.store.engine import Store
from ingress.account.rules import Connection
from ingress.account.store import AccountStore
from ingress.oauth.store import Account
from ingress.oauth.visitor import SignIn, Visitors
from ingress.pages.forms import read_form
from ingress.pages.render import error_page, page, redirect, render
from ingress.pages.session import check_csrf, csrf_token
from ingress.parameters import BadInput, one, positive_number, singles

PATH = "/account"

log = get_logger(__name__)


class AccountHandler:
    """Needs an application that `setup_pages` was called for. Nobody is told of a connection that is not theirs."""

    def __init__(self, store: Store, visitors: Visitors, sign_in: SignIn) -> None:
        self._connections = AccountStore(store)
        self._visitors = visitors
        self._sign_in = sign_in

    def routes(self) -> list[web.RouteDef]:
        """The routes, without trailing slashes."""
        return [
            web.get(PATH, self.show),
            web.post(PATH, self.log_in),
            web.get(f"{PATH}/revoke", self.back),
            web.post(f"{PATH}/revoke", self.revoke),
            web.get(f"{PATH}/sign-out", self.back),
            web.post(f"{PATH}/sign-out", self.sign_out),
            web.get(f"{PATH}/signed-out", self.signed_out),
        ]

    @page
    async def show(self, request: web.Request) -> web.Response:
        """GET: the user's connections, or first the login page; `?revoked=99` says that this has just been done."""
        session = await get_session(request)
        account = await self._visitors.account(session)
        if account is None:
            return await self._sign_in.ask(request)
        connections = await self._connections.connections(account.user_id)
        told = singles(request.query.items()).get("revoked")
        context = {
            "account": account.login or account.user_id,
            "connections": connections,
            "revoked": [
                each.connection_id for each in connections if not each.live and str(each.connection_id) == told
            ],
            "csrf": csrf_token(session),
        }
        return render(request, "account.html", context)

    @page
    async def log_in(self, request: web.Request) -> web.Response:
        """POST: a login."""
        return await self._sign_in.answer(request, await read_form(request))

    @page
    async def revoke(self, request: web.Request) -> web.Response:
        """POST: asks whether one is sure, and does it when the form says so."""
        form = await read_form(request)
        session = await get_session(request)
        account = await self._visitors.account(session)
        if account is None:
            return await self._sign_in.ask_again(request, PATH)
        if not check_csrf(session, form):
            return _too_old(request)
        connection = await self._own(account, form)
        if connection.live and form.get("sure") != "yes":
            return _question(request, session, connection)
        await self._connections.revoke(connection.connection_id)
        log.info("connection.revoked", connection_id=connection.connection_id, by="user")
        return redirect(f"{PATH}?revoked={connection.connection_id}")

    @page
    async def sign_out(self, request: web.Request) -> web.Response:
        """POST: the end of the session, an operator's too where one person is both."""
        session = await get_session(request)
        if not check_csrf(session, await read_form(request)):
            return _too_old(request)
        session.invalidate()
        return redirect(f"{PATH}/signed-out")

    @page
    async def signed_out(self, request: web.Request) -> web.Response:
        """GET: a page that asks nobody to sign in."""
        return render(request, "signed_out.html", {})

    @page
    async def back(self, request: web.Request) -> web.Response:
        """GET of what only a form can do: somebody has the address from their browser's history."""
        return redirect(PATH)

    async def _own(self, account: Account, form: dict[str, str]) -> Connection:
        connection_id = positive_number(one(form, "connectionId"), "connectionId")
        connection = await self._connections.connection(account.user_id, connection_id)
        if connection is None:
            raise BadInput("this connection is not one of yours")
        return connection


def _question(request: web.Request, session: Session, connection: Connection) -> web.Response:
    return render(request, "revoke.html", {"connection": connection, "csrf": csrf_token(session)})


def _too_old(request: web.Request) -> web.Response:
    message = "This page was too old, or was sent from elsewhere. Nothing was done. Open your account again."
    return error_page(request, 403, message)

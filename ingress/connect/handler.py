"""`GET /connect` sends an admin to Syncaroo's consent page, `GET /confirm` takes the code to the token worker and shows
what comes of it.
"""

from __future__ import annotations

import hashlib
import secrets
from functools import partial
from typing import Protocol

from aiohttp import hdrs, web
from aiohttp_session import Session, get_session

from common.broker.outgoing import Outgoing, outgoing
from common.codec import dumps
from common.crypto import TokenCipher, same_secret
from common.errors import BrokerUnavailable
from common.logs import get_logger
from common.settings import ClientSettings, KeySettings, SiteSettings, SyncarooSettings
from common.signed_text import SignedText
from common.store.engine import Store
from ingress.connect.login import AdminLogin
from ingress.connect.rules import (
    Attempt,
    CodeCame,
    Declined,
    View,
    authorize_url,
    declined_view,
    read_callback,
    view_of,
)
from ingress.connect.sign_in import OperatorSignIn
from ingress.connect.store import ConnectStore
from ingress.oauth.rules import origin_of
from ingress.pages.forms import read_form
from ingress.pages.render import error_page, in_session, page, redirect, render
from ingress.parameters import BadInput, singles
from schemas.messages import CodeReceived

STATUS_PATH = "/confirm/status"
BINDING = "connect"
"""Where the session keeps the secret that its states are bound to."""
SHARD = 0
NOT_HANDED_ON = (
    "The authorization could not be handed on, because the message broker does not answer. "
    "Reload this page in a few seconds; if that does not help, start again at /connect."
)

log = get_logger(__name__)


class Publishes(Protocol):
    """What is needed of the publisher."""

    async def publish(self, message: Outgoing) -> None:
        """Publish and wait for the confirm; raises `BrokerUnavailable`."""


class ConnectHandler:
    """Both pages. Needs an application that `setup_pages` was called for.

    Where the admin is sent, and where Syncaroo is told to send them back to, come from settings alone.
    """

    def __init__(
        self,
        store: Store,
        publisher: Publishes,
        site: SiteSettings,
        keys: KeySettings,
        syncaroo: SyncarooSettings,
        ourselves: ClientSettings,
        login: AdminLogin,
    ) -> None:
        self._attempts = ConnectStore(store)
        self._publisher = publisher
        self._cipher = TokenCipher(keys.clear())
        self._states = SignedText(keys.clear(), "connect-state", "connect_")
        self._base_url = syncaroo.syncaroo_base_url
        self._client_id = ourselves.syncaroo_client_id
        self._redirect_uri = f"{site.site_uri}/confirm"
        # Browsers apply form-action to the whole chain of redirects, and this one ends at Syncaroo.
        self._sign_in = OperatorSignIn(login, "connect_login.html", [origin_of(self._base_url)])

    def routes(self) -> list[web.RouteDef]:
        """The routes, without trailing slashes."""
        return [
            web.get("/connect", self.connect, allow_head=False),
            web.post("/connect", self.log_in),
            web.get("/confirm", self.confirm, allow_head=False),
            web.get(STATUS_PATH, partial(in_session, handler=self.status), allow_head=False),
        ]

    @page
    async def connect(self, request: web.Request) -> web.Response:
        """On to Syncaroo, or first the login."""
        session = await get_session(request)
        if not self._is_operator(session):
            return self._sign_in.ask(request, session)
        state = self._states.sign(await self._attempts.begin(), _mark(_binding(session)))
        return redirect(authorize_url(self._base_url, self._client_id, self._redirect_uri, state), 302)

    @page
    async def log_in(self, request: web.Request) -> web.Response:
        """The admin's token; a right one leads back to `connect`."""
        return await self._sign_in.answer(request, await read_form(request), "/connect")

    @page
    async def confirm(self, request: web.Request) -> web.Response:
        """Back from Syncaroo. The same link may be opened again and again: it shows how its attempt stands."""
        session = await get_session(request)
        match read_callback(singles(request.query.items())):
            case Declined() as declined:
                return await self._decline(request, session, declined)
            case CodeCame() as came:
                return await self._confirm(request, session, came)

    async def _confirm(self, request: web.Request, session: Session, came: CodeCame) -> web.Response:
        try:
            attempt = await self._standing(session, came)
        except BrokerUnavailable:
            return error_page(request, 503, NOT_HANDED_ON, {hdrs.RETRY_AFTER: "5"})
        return _view_page(request, view_of(attempt))

    async def status(self, request: web.Request) -> web.Response:
        """How the attempt of this link stands: what the page of `confirm` asks while it is open.

        Raises:
            BadInput: it is no link of this session.
            BrokerUnavailable: the code cannot be handed on by now.
        """
        came = read_callback(singles(request.query.items()))
        if not isinstance(came, CodeCame):
            raise _wrong_state()
        attempt = await self._standing(await get_session(request), came)
        return web.Response(
            body=dumps(view_of(attempt)), content_type="application/json", headers={hdrs.CACHE_CONTROL: "no-store"}
        )

    async def _standing(self, session: Session, came: CodeCame) -> Attempt:
        """How the attempt stands, with its code handed on; one that died with its process is handed on once more."""
        attempt_id = self._attempt_of(session, came.state)
        if attempt_id is None:
            raise _wrong_state()
        if await self._attempts.use(attempt_id):
            await self._hand_on(attempt_id, came.code)
        attempt = await self._attempts.used(attempt_id)
        if attempt is None:
            raise _wrong_state()
        return attempt

    async def _decline(self, request: web.Request, session: Session, declined: Declined) -> web.Response:
        attempt_id = self._attempt_of(session, declined.state)
        if attempt_id is None:
            return _view_page(request, declined_view(declined.error), 400)
        log.warning("connect.declined", attempt_id=attempt_id)
        await self._attempts.decline(attempt_id, declined.error)
        return _view_page(request, declined_view(declined.error))

    async def _hand_on(self, attempt_id: str, code: str) -> None:
        """To the token worker. If the broker does not answer, the link is usable again; should the code have got
        through all the same, the attempt's outcome is shown then.
        """
        message = CodeReceived(attempt_id=attempt_id, sealed_code=self._cipher.seal(code.encode()))
        try:
            await self._publisher.publish(outgoing(message, "token", SHARD))
        except BrokerUnavailable as error:
            log.error("connect.code_not_published", attempt_id=attempt_id, reason=str(error))
            await self._attempts.unuse(attempt_id)
            raise
        log.info("connect.code_received", attempt_id=attempt_id)
        await self._attempts.handed_on(attempt_id)

    def _attempt_of(self, session: Session, state: str) -> str | None:
        """The attempt that the state names, when it was signed by us, for this session."""
        parts = self._states.read(state)
        binding = session.get(BINDING)
        if parts is None or len(parts) != 2 or not isinstance(binding, str) or not self._is_operator(session):
            return None
        attempt_id, mark = parts
        return attempt_id if same_secret(mark, _mark(binding)) else None

    def _is_operator(self, session: Session) -> bool:
        return self._sign_in.operator(session) is not None


def _binding(session: Session) -> str:
    binding = session.get(BINDING)
    if not isinstance(binding, str):
        binding = session[BINDING] = secrets.token_urlsafe(32)
    return str(binding)


def _mark(binding: str) -> str:
    """What a state says about its session: enough to recognise it, too little to use it."""
    return hashlib.sha256(binding.encode()).hexdigest()[:32]


def _wrong_state() -> BadInput:
    return BadInput(
        "this link is not valid here (too old, or begun in another browser): please start again at /connect"
    )


def _view_page(request: web.Request, view: View, status: int = 200) -> web.Response:
    return render(request, "confirm.html", {"view": view, "status_path": STATUS_PATH}, status=status)

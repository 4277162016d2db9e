"""The web UI and the REST API: anyone reads, users ask."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from buildbot.data.base import EndpointKind
from buildbot.www.auth import CustomAuth, UserInfoProviderBase
from buildbot.www.authz import Authz, Forbidden
from buildbot.www.authz.endpointmatchers import (
    AnyControlEndpointMatcher,
    EndpointMatcherBase,
    ForceBuildEndpointMatcher,
    Match,
    RebuildBuildEndpointMatcher,
)
from buildbot.www.authz.roles import RolesFromBase, RolesFromOwner
from twisted.internet.defer import ensureDeferred, succeed

from master import buildbot_patches
from master.requests.fields import CLAIMED_OWNER
from master.requests.rest import PATH
from master.requests.waiting import told
from master.users import OPERATOR, Users, digest, operator_token
from master.web import clients as web_clients
from master.web.json_rpc import check_every_post

if TYPE_CHECKING:
    from master.settings import Settings

_REFUSAL = (
    b"asking needs a user: log in, or send 'Authorization: Bearer <token>' with a token that the"
    b" operator gave you"
)
_NOT_YOURS = b"only who asked for it, or the operator, may do that"


class _Mark(UserInfoProviderBase):
    """Adds a mark to a session, which becomes invalid when its user is removed or gets another secret."""

    name = "mark"

    def __init__(self, users: Users) -> None:
        super().__init__()
        self._users = users

    def getUserInfo(self, username: str) -> Any:
        return succeed({"email": username, "mark": self._users.mark(username)})


class SecretAuth(CustomAuth):
    """Takes a user's secret as the password on the web, and as Bearer or Basic on the API."""

    def __init__(self, settings: Settings) -> None:
        """Keep the settings that logins need; nothing is in force before `reconfigAuth`."""
        super().__init__()
        self._digests = dict(settings.users)
        self._state = settings.state
        self._www = settings.www
        self._users = Users({})

    def reconfigAuth(self, master: Any, new_config: Any) -> None:
        """Have every request of the API say whose it is, not only those with a cookie."""
        super().reconfigAuth(master, new_config)
        # Not while the settings are read: they may be refused, and those before stay in force.
        web_clients.configure(https=self._www.url.startswith("https:"), proxies=self._www.proxies)
        self._users = Users({**self._digests, OPERATOR: digest(operator_token(self._state))})
        self.userInfoProvider = _Mark(self._users)
        www = master.www
        www.site.users = self._users

        def user_infos(request: Any) -> dict[str, Any]:
            header = request.getHeader(b"authorization")
            if header is None:
                session = dict(type(www).getUserInfos(www, request))
                mark = self._users.mark(str(session.get("username", "")))
                return session if mark and mark == session.get("mark") else {"anonymous": True}
            name = self._users.of_authorization(header.decode(errors="surrogateescape"))
            return {"anonymous": True} if name is None else {"username": name, "email": name}

        www.getUserInfos = user_infos

    def check_credentials(self, username: bytes, password: bytes) -> bool:
        """Whether somebody may log in."""
        return self._users.check(username.decode(errors="replace"), password.decode(errors="surrogateescape"))

    def getConfigDict(self) -> dict[str, str]:
        """Tell the UI to ask for a name and a secret; nothing else is for everybody's eyes."""
        return {"name": "UserPasswordAuth"}


class _StillWaiting(EndpointMatcherBase):
    """Matches what a user may say of what he waits for himself."""

    def match(self, ep: Any, action: Any = "get", options: Any = None) -> Any:
        mine = tuple(ep)[:1] == PATH and str(action).lower() != "get"
        return succeed(Match(self.master) if mine else None)


class _Roles(RolesFromBase):
    def getRolesFromUser(self, userDetails: dict[str, Any]) -> list[str]:
        name = userDetails.get("username")
        if not name:
            return []
        return ["user", OPERATOR] if name == OPERATOR else ["user"]


class _Cancel(EndpointMatcherBase):
    """Matches the end of a build or of a request, both of which have an owner."""

    async def _match(self, endpoint: Any, arguments: Any, kind: str) -> Match:
        return Match(self.master, **{kind: await endpoint.get({}, arguments)})

    def match_BuildEndpoint_stop(self, endpoint: Any, arguments: Any, _: Any) -> Any:
        return ensureDeferred(self._match(endpoint, arguments, "build"))

    def match_BuildRequestEndpoint_cancel(self, endpoint: Any, arguments: Any, _: Any) -> Any:
        return ensureDeferred(self._match(endpoint, arguments, "buildrequest"))


class UsersOnly(Authz):
    """Lets users ask, owners cancel, and the operator do everything; tells others what to do."""

    def __init__(self) -> None:
        """Allow nothing that changes anything to anonymous people."""
        super().__init__(
            allowRules=[
                ForceBuildEndpointMatcher(role="user"),
                RebuildBuildEndpointMatcher(role="user"),
                _StillWaiting(role="user"),
                _Cancel(role="owner", defaultDeny=False),
                AnyControlEndpointMatcher(role=OPERATOR),
            ],
            roleMatchers=[_Roles(), RolesFromOwner(role="owner")],
        )

    async def _allowed(self, ep: Any, action: str, options: dict[str, Any], user: Any) -> None:
        # Buildbot writes the owner over whatever the request says; set aside, it can be refused.
        if "owner" in options:
            options[CLAIMED_OWNER] = options.pop("owner")
        if str(action).lower() == "head":
            action = "get"
        name = user.get("username")
        try:
            await super().assertUserAllowed(ep, action, options, user)
        except Forbidden:
            raise Forbidden(_NOT_YOURS if name else _REFUSAL) from None
        if str(action) in ("stop", "cancel") and name != OPERATOR:
            await self._only_he_waits(ep, str(name))

    async def _only_he_waits(self, ep: Any, name: str) -> None:
        """Refuse to end what others wait for, too, were it by who asked first."""
        endpoint, arguments = self.master.data.getEndpoint(ep)
        if endpoint.kind != EndpointKind.SINGLE:
            return
        found = await endpoint.get({}, arguments) or {}
        waiting = self.master.service_manager.namedServices["waiting"]
        others = [one for one in waiting.of(found.get("buildrequestid")) if one.asker != name]
        if others:
            said = f"{told(others)} {'waits' if len(others) == 1 else 'wait'} for it, too"
            raise Forbidden(said.encode())

    def assertUserAllowed(self, *arguments: Any) -> Any:
        """Refuse with a sentence that says what to do."""
        return ensureDeferred(self._allowed(*arguments))


def www(settings: Settings) -> dict[str, Any]:
    """Give `c["www"]`."""
    buildbot_patches.apply()
    web_clients.apply()
    check_every_post(_REFUSAL)
    return {
        "port": f"tcp:{settings.www.port}:interface={settings.www.host}",
        "auth": SecretAuth(settings),
        "authz": UsersOnly(),
        "plugins": {},
        "allowed_origins": web_clients.allowed_origins(settings.www.url),
        # Buildbot's default sends browsers to gravatar.com, with a hash of the user's name. Without any, the UI shows the name.
        "avatar_methods": [],
        "cookie_expiration_time": timedelta(hours=12),
        "ui_default_config": {"Home.sidebar_menu_groups_expand_behavior": "Always expand"},
    }

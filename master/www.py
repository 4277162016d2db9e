"""The web UI and the REST API: anyone reads, users ask."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from buildbot.www.auth import CustomAuth
from buildbot.www.authz import Authz, Forbidden
from buildbot.www.authz.endpointmatchers import AnyControlEndpointMatcher
from buildbot.www.authz.roles import RolesFromBase

from master.request_fields import CLAIMED_OWNER
from master.users import OPERATOR, Users, digest, operator_token

if TYPE_CHECKING:
    from master.settings import Settings


class SecretAuth(CustomAuth):
    """Takes a user's secret as the password on the web, and as Bearer or Basic on the API."""

    def __init__(self, digests: dict[str, str], state: Path) -> None:
        """Take the users' digests, and where the operator's token is."""
        super().__init__()
        self._digests = digests
        self._state = state
        self._users = Users({})

    def reconfigAuth(self, master: Any, new_config: Any) -> None:
        """Have every request of the API say whose it is, not only those with a cookie."""
        super().reconfigAuth(master, new_config)
        self._users = Users({**self._digests, OPERATOR: digest(operator_token(self._state))})
        www = master.www

        def user_infos(request: Any) -> dict[str, Any]:
            header = request.getHeader(b"authorization")
            if header is None:
                return dict(type(www).getUserInfos(www, request))
            name = self._users.of_authorization(header.decode(errors="surrogateescape"))
            return {"anonymous": True} if name is None else {"username": name, "email": name}

        www.getUserInfos = user_infos

    def check_credentials(self, username: bytes, password: bytes) -> bool:
        """Whether somebody may log in."""
        return self._users.check(
            username.decode(errors="replace"), password.decode(errors="surrogateescape")
        )

    def getConfigDict(self) -> dict[str, str]:
        """Tell the UI to ask for a name and a secret; nothing else is for everybody's eyes."""
        return {"name": "UserPasswordAuth"}


class _Anyone(RolesFromBase):
    def getRolesFromUser(self, userDetails: dict[str, Any]) -> list[str]:
        return [] if userDetails.get("anonymous", True) and "username" not in userDetails else ["user"]


class UsersOnly(Authz):
    """Lets users do what changes anything, and tells others how to become one."""

    def __init__(self) -> None:
        """Allow every control endpoint to users."""
        super().__init__(
            allowRules=[AnyControlEndpointMatcher(role="user")], roleMatchers=[_Anyone()]
        )

    async def _allowed(self, ep: Any, action: str, options: dict[str, Any], user: Any) -> None:
        # Buildbot writes the owner over whatever the request says; set aside, it can be refused.
        if "owner" in options:
            options[CLAIMED_OWNER] = options.pop("owner")
        try:
            await super().assertUserAllowed(ep, action, options, user)
        except Forbidden:
            raise Forbidden(
                b"asking needs a user: log in, or send 'Authorization: Bearer <token>' with a token"
                b" that the operator gave you"
            ) from None

    def assertUserAllowed(self, *arguments: Any) -> Any:
        """Refuse with a sentence that says what to do."""
        from twisted.internet.defer import ensureDeferred

        return ensureDeferred(self._allowed(*arguments))


def www(settings: Settings) -> dict[str, Any]:
    """Give `c["www"]`."""
    return {
        "port": f"tcp:{settings.www.port}:interface={settings.www.host}",
        "auth": SecretAuth(dict(settings.users), settings.state),
        "authz": UsersOnly(),
        "plugins": {},
        "default_page": "builders",
    }

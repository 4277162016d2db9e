"""URLs of HTTP servers, as settings name them."""

from __future__ import annotations

import re


def http_url(text: str) -> str:
    """Return a server's URL with single slashes and one at its end; ValueError says how it must be written."""
    match = re.match(r"(https?://[A-Za-z0-9.\[\]:-]+)((?:/[A-Za-z0-9._~/-]*)?)\Z", text)
    if match is None:
        raise ValueError("must be a URL like http://HOST:PORT/, or one with a path")
    return match[1] + re.sub("/+", "/", f"{match[2]}/")

# SPDX-License-Identifier: Apache-2.0
"""The page at `/`: a chat, in one file that asks no other address."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response


async def page(request: Request) -> Response:
    """Returns the page; the browser may run its own script alone, which may ask this server alone."""
    text, policy = _page()
    return Response(
        text,
        media_type="text/html",
        headers={
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",
        },
    )


@functools.cache
def _page() -> tuple[str, str]:
    text = (resources.files("atb_serve") / "page.html").read_text(encoding="utf-8")
    sources = {}
    for tag in ("script", "style"):
        found = re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert found is not None
        sources[tag] = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{sources['script']}'; style-src 'sha256-{sources['style']}'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text, policy

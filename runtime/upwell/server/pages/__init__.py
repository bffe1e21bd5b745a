"""The pages that people see: made by the server, live by its stream, one module a group of pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from litestar.types import ControllerRouterHandler


def routes() -> list[ControllerRouterHandler]:
    """All handlers of the pages."""
    from upwell.server.pages.routing import pages_router  # here: loads Litestar and Jinja2

    return [pages_router()]


def __getattr__(name: str) -> object:
    """PUBLIC_FILES: what the login page loads, which anybody may have. FAULTS: what is shown of faults.
    session_ended: makes the page for a form whose sender's session has ended.
    """
    if name == "PUBLIC_FILES":
        from upwell.server.pages.assets import asset, assets

        return frozenset(asset(file) for file in assets().files)
    if name == "FAULTS":
        from upwell.server.pages.routing import FAULTS

        return FAULTS
    if name == "session_ended":
        from upwell.server.pages.rendering import session_ended

        return session_ended
    raise AttributeError(name)


__all__ = ["routes"]

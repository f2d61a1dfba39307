"""The HTTP service: routes over the use cases, event streams, the dashboard."""

from api.app import create_app
from api.server import AddressUnavailable, bind, serve, url_of

__all__ = ["AddressUnavailable", "bind", "create_app", "serve", "url_of"]

"""All paths of the Vast.ai face."""

from __future__ import annotations

from aiohttp import web

from providers.sandbox.engine import Engine
from providers.sandbox.ssh import Farm
from providers.sandbox.vast import account, actions, create, hosting, instances, keys, offers, templates
from providers.sandbox.vast.gateway import mount


def add_routes(app: web.Application, engine: Engine, farm: Farm) -> None:
    for module in (offers, create, instances, actions, keys, templates, account, hosting):
        mount(app, engine, farm, module.ROUTES)
    hosting.add_admin_route(app, engine)

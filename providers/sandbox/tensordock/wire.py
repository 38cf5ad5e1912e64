"""All paths of the TensorDock face, and what the sandbox's own side asks of it."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from providers.sandbox.engine import Engine
from providers.sandbox.instances import Contract
from providers.sandbox.ledger import Account
from providers.sandbox.limits import Quota
from providers.sandbox.ssh import Farm
from providers.sandbox.tensordock import create, instances, inventory, keys, legacy
from providers.sandbox.tensordock.gateway import CALLS_PER_MINUTE, World, mount
from providers.sandbox.tensordock.stock import Stock, Wanted


class TensorDockSide:
    """What happens on the market without any client of ours."""

    def __init__(self, world: World) -> None:
        self._world = world

    def reset(self) -> None:
        self._world.stock.reset()
        self._world.quota.forget()

    def take(self, offer: str) -> bool:
        return self._world.stock.take(offer)

    def make(self, account: Account, body: dict[str, Any]) -> Contract:
        """A machine that no broker made: ``label``, ``image``, ``disk``; one GPU of the host with most of them free."""
        world = self._world
        node = max(world.stock.nodes, key=lambda each: (world.stock.free(each).gpus, -each.number))
        if not world.stock.free(node).gpus:
            raise ValueError("everything is rented")
        wanted = Wanted(
            name=str(body.get("label") or ""),
            image=str(body.get("image", "ubuntu2404")),
            vcpus=2,
            ram_gb=4,
            storage_gb=int(body.get("disk", 100)),
            v0=node.row.v0,
            gpus=1,
            location_id=node.place.id,
            forwards=[(22, 0)],
        )
        return create.rent(world.engine, world.stock, account, node, wanted, [])


def add_routes(app: web.Application, engine: Engine, farm: Farm) -> TensorDockSide:
    world = World(engine, farm, Stock(engine), Quota(CALLS_PER_MINUTE, 60.0, engine.limits_now))
    for module in (inventory, create, instances, keys):
        mount(app, world, module.ROUTES)
    legacy.mount(app, world)
    return TensorDockSide(world)

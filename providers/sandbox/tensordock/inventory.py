"""What is on sale, by location and by hostnode (TensorDock contract, sections 4.1 and 4.2)."""

from __future__ import annotations

from typing import Any

from providers.sandbox.tensordock.errors import plain
from providers.sandbox.tensordock.gateway import Call, Route
from providers.sandbox.tensordock.places import PLACES, Place, Row
from providers.sandbox.tensordock.stock import SHARE_LIMIT, Free, Hostnode

#: One host in so many does not say how its resources are shared, nor how long it has been up.
TACITURN = 5


def locations(call: Call) -> dict[str, Any]:
    """Every place with something free. What a GPU row allows holds for some host there, not all at once."""
    found = []
    for place in PLACES:
        gpus = [row for row in (_gpu_row(call, place, row) for row in place.rows) if row]
        if gpus:
            found.append(
                {
                    "id": place.id,
                    "city": place.city,
                    "stateprovince": place.state,
                    "country": place.country,
                    "tier": place.tier,
                    "gpus": gpus,
                }
            )
    return {"data": {"locations": _listed(call, found)}}


def _listed(call: Call, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    lie = call.engine.faults.take({"empty_listing", "partial_listing"}, "search")
    if lie is None:
        return rows
    return [] if lie.kind == "empty_listing" else rows[: int(lie.params.get("keep", 1))]


def _gpu_row(call: Call, place: Place, row: Row) -> dict[str, Any] | None:
    nodes = [node for node in call.stock.nodes if node.place.id == place.id and node.row.v0 == row.v0]
    if call.engine.settings.stale_stock:
        free = [_everything(node) for node in nodes]
    else:
        free = [left for left in (call.stock.free(node) for node in nodes) if left.gpus]
    if not free:
        return None
    return {
        "v0Name": row.v0,
        "displayName": nodes[0].model.shown,
        "max_count": max(left.gpus for left in free),
        "price_per_hr": row.price,
        "resources": {
            "max_vcpus": max(left.vcpus for left in free),
            "max_ram_gb": int(max(left.ram_gb for left in free)),
            "max_storage_gb": int(max(left.storage_gb for left in free)),
        },
        "pricing": _pricing(place),
        "network_features": {
            "dedicated_ip_available": any(left.addresses > 0 for left in free),
            "port_forwarding_available": True,
            "network_storage_available": place.network_storage,
        },
    }


def _everything(node: Hostnode) -> Free:
    return Free(node.gpus, node.vcpus, node.ram_gb, node.storage_gb, node.place.addresses)


def _pricing(place: Place) -> dict[str, float]:
    return {
        "per_vcpu_hr": place.per_vcpu,
        "per_gb_ram_hr": place.per_ram_gb,
        "per_gb_storage_hr": place.per_storage_gb,
    }


def hostnodes(call: Call) -> dict[str, Any]:
    """Every host with a free GPU. Query parameters are taken and change nothing."""
    rows = [_node_row(call, node) for node in call.stock.nodes if call.stock.free(node).gpus]
    return {"data": {"hostnodes": _listed(call, [] if call.engine.settings.hostnodes_empty else rows)}}


def hostnode(call: Call) -> dict[str, Any]:
    node = call.stock.node(call.request.match_info["id"])
    if node is None:
        raise plain(404, "Hostnode not found")
    return {"data": _node_row(call, node)}


def _node_row(call: Call, node: Hostnode) -> dict[str, Any]:
    free, place = call.stock.free(node), node.place
    resources: dict[str, Any] = {
        "gpus": [{"v0Name": node.row.v0, "availableCount": free.gpus, "price_per_hr": node.row.price}],
        "vcpu_count": free.vcpus,
        "ram_gb": free.ram_gb,
        "storage_gb": free.storage_gb,
        "max_vcpus": free.vcpus,
        "max_ram_gb": free.ram_gb,
        "max_storage_gb": free.storage_gb,
        "available_ports": call.stock.open_ports(node),
        "has_public_ip_available": free.addresses > 0,
    }
    row: dict[str, Any] = {
        "id": node.id,
        "location_id": place.id,
        "engine": "narwhal" if place.tier else "v0",
        "available_resources": resources,
        "pricing": _pricing(place),
        "location": {
            "uuid": place.id,
            "city": place.city,
            "stateprovince": place.state,
            "country": place.country,
            "has_network_storage": place.network_storage,
            "network_speed_gbps": 0.94 if place.tier < 2 else 10,
            "network_speed_upload_gbps": 0.35 if place.tier < 2 else 10,
            "organization": place.id[:8],
            "organizationName": place.organization,
            "tier": place.tier,
        },
    }
    if node.number % TACITURN:
        row["uptime_percentage"] = round(99.95 - (node.number % 7) * 0.31, 2)
        resources["max_vcpus_per_gpu"] = node.model.vcpus * SHARE_LIMIT
        resources["max_ram_per_gpu"] = node.model.ram_gb * SHARE_LIMIT
    return row


ROUTES = [
    Route("GET", "/locations", "search", locations, public=True),
    Route("GET", "/hostnodes", "search", hostnodes, denied=403),
    Route("GET", "/hostnodes/{id}", "search", hostnode, denied=403),
]

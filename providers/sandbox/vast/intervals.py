"""The published shortest time between two calls of one caller (Vast.ai contract, section 1.5)."""

from __future__ import annotations

from collections.abc import Mapping

#: Seconds, by operation. Operations not named here have no limit.
INTERVALS: Mapping[str, float] = {
    "create": 4.5,
    "search": 3.0,
    "templates": 3.0,
    "list": 1.0,
    "get": 2.0,
    "update": 1.0,
    "destroy": 3.0,
    "bid": 5.5,
    "reboot": 1.0,
    "recycle": 1.0,
    "execute": 1.5,
    "detach": 2.0,
    "ssh_list": 1.0,
    "ssh_add": 1.0,
    "ssh_update": 1.0,
    "instance_keys": 1.0,
    "invoices": 3.0,
    "charges": 1.0,
    "machines": 2.5,
    "machine_minbid": 1.5,
    "machine_unlist": 1.8,
    "user_update": 5.0,
}

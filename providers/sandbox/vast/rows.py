"""Offer and instance rows as Vast.ai writes them (Vast.ai contract, sections 2.4 and 4.3)."""

from __future__ import annotations

from time import gmtime, strftime
from typing import Any

from providers.sandbox.catalog import DAY, MONTH_HOURS
from providers.sandbox.engine import Engine
from providers.sandbox.instances import Contract, hash_of

_WITHOUT_END = 30 * DAY


def _driver_number(version: str) -> int:
    parts = [*version.split("."), "0", "0"]
    return int(parts[0]) * 1_000_000 + int(parts[1]) * 1000 + int(parts[2])


def _gpu_columns(offer: dict[str, Any]) -> dict[str, Any]:
    model, gpus = offer["model"], offer["num_gpus"]
    share = gpus / offer["machine_gpus"]
    return {
        "gpu_name": model["name"],
        "num_gpus": gpus,
        "gpu_frac": share,
        "gpu_ram": model["memory_mb"],
        "gpu_arch": "nvidia",
        "compute_cap": model["compute_cap"],
        "cuda_max_good": offer["cuda_max_good"],
        "driver_version": offer["driver_version"],
        "driver_vers": _driver_number(offer["driver_version"]),
        "gpu_mem_bw": model["bandwidth_gbs"],
        "bw_nvlink": offer["bw_nvlink"],
        "gpu_lanes": offer["gpu_lanes"],
        "pci_gen": offer["pci_gen"],
        "pcie_bw": offer["pcie_bw"],
        "gpu_max_power": float(model["watts"]),
        "gpu_max_temp": offer["gpu_max_temp"],
        "gpu_display_active": False,
        "gpu_ids": list(range(gpus)),
        "dlperf": round(model["dlperf"] * gpus, 3),
        "total_flops": round(model["tflops"] * gpus, 3),
    }


def _host_columns(offer: dict[str, Any]) -> dict[str, Any]:
    share = offer["num_gpus"] / offer["machine_gpus"]
    return {
        "machine_id": offer["machine_id"],
        "host_id": offer["host_id"],
        "hosting_type": 1 if offer["datacenter"] else 0,
        "bundle_id": hash_of(f"{offer['host_id']}{offer['model']['name']}{offer['num_gpus']}") % 2_000_000_000,
        "cpu_name": offer["cpu_name"],
        "cpu_arch": "arm64" if offer["model"]["name"].startswith("GH200") else "amd64",
        "cpu_ghz": offer["cpu_ghz"],
        "cpu_cores": offer["cpu_cores"],
        "cpu_cores_effective": round(offer["cpu_threads"] * share, 1),
        "cpu_ram": offer["cpu_ram"],
        "has_avx": 1,
        "disk_bw": offer["disk_bw"],
        "disk_name": offer["disk_name"],
        "inet_up": offer["inet_up"],
        "inet_down": offer["inet_down"],
        "inet_up_cost": offer["inet_cost"],
        "inet_down_cost": offer["inet_cost"],
        "internet_up_cost_per_tb": offer["inet_cost"] * 1000,
        "internet_down_cost_per_tb": offer["inet_cost"] * 1000,
        "direct_port_count": offer["direct_port_count"],
        "static_ip": offer["static_ip"],
        "geolocation": offer["place"],
        "geolocode": None if offer["place"] is None else hash_of(country(offer["place"]) or "") % 2_000_000_000,
        "os_version": offer["os_version"],
        "mobo_name": offer["mobo_name"],
        "reliability2": offer["reliability"],
        "verification": offer["verification"],
        "vms_enabled": offer["vms_enabled"],
        "storage_cost": offer["storage_price"],
        "credit_discount_max": 0.4,
        "logo": "/static/logos/vastai_small2.png",
        "webpage": None,
        "hostname": None,
        "cluster_id": None,
    }


def country(place: str | None) -> str | None:
    return None if place is None else place.rsplit(",", 1)[-1].strip()


def offer_base(offer: dict[str, Any]) -> dict[str, Any]:
    """The columns of an offer that stay the same as long as it is on sale."""
    verified = offer["verification"] == "verified"
    return {
        "id": offer["ask_id"],
        "ask_contract_id": offer["ask_id"],
        **_host_columns(offer),
        **_gpu_columns(offer),
        "gpu_total_ram": offer["model"]["memory_mb"] * offer["num_gpus"],
        "resource_type": "gpu",
        "rentable": True,
        "rented": False,
        "verified": verified,
        "vericode": 1 if verified else 0,
        "external": False,
        "is_vm_deverified": False,
        "start_date": offer["listed_at"] - 3 * DAY,
        "reliability": offer["reliability"],
        "reliability_mult": offer["reliability"],
        "expected_reliability": offer["reliability"],
        "direct_port_start": 40_000 if offer["direct_port_count"] else -1,
        "public_ipaddr": offer["address"],
        "disk_space": round(offer["disk_space"] * offer["num_gpus"] / offer["machine_gpus"], 1),
        "rn": 1,
        "bundled_results": None,
        "avail_vol_ask_id": None,
        "avail_vol_dph": None,
        "avail_vol_size": None,
        "nw_disk_avg_bw": None,
        "nw_disk_max_bw": None,
        "nw_disk_min_bw": None,
        "discount_rate": 0.0,
        "min_bid": round(offer["bid_price"] * offer["num_gpus"], 4),
    }


def offer_row(base: dict[str, Any], offer: dict[str, Any], now: float, storage: float, bid: bool) -> dict[str, Any]:
    """An offer priced for a search: ``dph_total`` holds ``storage`` GB of disk, or the bid instead of the price."""
    gpus = offer["num_gpus"]
    per_hour = round(offer["bid_price"] * gpus, 4) if bid else round(offer["gpu_price"] * gpus, 6)
    disk = storage * offer["storage_price"] / MONTH_HOURS
    total = per_hour + disk
    end = offer["end_date"]
    left = _WITHOUT_END if end is None else max(0.0, end - now)
    parts = {
        "gpuCostPerHour": per_hour,
        "diskHour": disk,
        "totalHour": total,
        "discountTotalHour": 0.0,
        "discountedTotalPerHour": total,
    }
    return {
        **base,
        "is_bid": bid,
        "end_date": end,
        "duration": left,
        "time_remaining": f"{int(left // DAY)} days" if not bid else "",
        "time_remaining_isbid": f"{int(left // DAY)} days" if bid else "",
        "dph_base": per_hour,
        "dph_total": total,
        "dph_total_adj": total,
        "discounted_hourly": 0.0,
        "discounted_dph_total": total,
        "storage_total_cost": disk,
        "dlperf_per_dphtotal": round(base["dlperf"] / total, 3),
        "flops_per_dphtotal": round(base["total_flops"] / total, 3),
        "vram_costperhour": per_hour / (base["gpu_total_ram"] / 1000),
        "platform_fee": None,
        "score": round(base["dlperf"] / total * base["reliability2"] * offer["score_noise"], 4),
        "search": parts,
        "instance": dict(parts),
    }


def instance_row(engine: Engine, contract: Contract) -> dict[str, Any]:
    """An instance, the same in the list and by id."""
    now, offer, phase = engine.clock.now(), contract.offer, engine.phase(contract)
    alive = phase.running
    total = contract.gpu_rate + contract.disk_rate
    running_for = max(0.0, now - contract.boot_done_at)
    return {
        "id": contract.id,
        **_host_columns(offer),
        **_gpu_columns(offer),
        **_state_columns(contract, phase.status, phase.message),
        **_ssh_columns(engine, contract, alive),
        "gpu_totalram": offer["model"]["memory_mb"] * contract.num_gpus,
        "gpu_util": float(contract.load.get("utilization", 0.0)) if alive else None,
        "gpu_temp": 34.0 if alive else None,
        "vmem_usage": 0.0 if alive else None,
        "mem_limit": round(offer["cpu_ram"] / 1000 * contract.num_gpus / offer["machine_gpus"], 2) if alive else None,
        "mem_usage": 0.4 if alive else None,
        "cpu_util": 1.5 if alive else None,
        "disk_space": contract.disk,
        "disk_usage": 1.3 if alive else None,
        "disk_util": 1.3 if alive else -1,
        "start_date": contract.created_at,
        "end_date": contract.ends_at,
        "duration": contract.ends_at - now,
        "time_remaining": strftime("%j days", gmtime(max(0.0, contract.ends_at - now))),
        "uptime_mins": running_for / 60 if alive else None,
        "client_run_time": 1.0,
        "host_run_time": DAY * 30,
        "dph_base": contract.gpu_rate,
        "dph_total": total,
        "min_bid": round(engine.winning_bid(contract), 4),
        "is_bid": contract.bid is not None,
        "storage_total_cost": contract.disk_rate,
        "search": _parts(contract, contract.gpu_rate),
        "instance": _parts(contract, contract.gpu_rate if contract.current == "running" else 0.0),
        "credit_balance": None,
        "credit_discount": None,
        "country_code": country(offer["place"]),
        "rented": True,
        "rentable": False,
        "volume_info": [],
    }


def _parts(contract: Contract, gpu: float) -> dict[str, float]:
    total = gpu + contract.disk_rate
    return {
        "gpuCostPerHour": gpu,
        "diskHour": contract.disk_rate,
        "totalHour": total,
        "discountTotalHour": 0.0,
        "discountedTotalPerHour": total,
    }


def _state_columns(contract: Contract, status: str | None, message: str | None) -> dict[str, Any]:
    return {
        "label": contract.label,
        "actual_status": status,
        "cur_state": contract.current,
        "next_state": contract.intended,
        "intended_status": contract.intended,
        "status_msg": message,
        "image_uuid": contract.image,
        "image_args": contract.args,
        "image_runtype": contract.runtype,
        "extra_env": contract.env,
        "onstart": contract.onstart,
        "jupyter_token": contract.jupyter_token,
        "template_id": contract.template.get("id"),
        "template_hash_id": contract.template.get("hash_id"),
        "template_name": contract.template.get("name"),
    }


def _ssh_columns(engine: Engine, contract: Contract, alive: bool) -> dict[str, Any]:
    """Where it can be reached: nothing direct before it runs; the address with its stray newline."""
    ports: dict[str, Any] = {}
    for inside, outside in contract.ports.items():
        binding = {"HostPort": str(outside)}
        ports[inside] = [{"HostIp": "0.0.0.0", **binding}, {"HostIp": "::", **binding}]  # noqa: S104 - Docker's words
    used = sorted(contract.ports.values())
    address = contract.address or engine.options.address
    return {
        "ssh_host": address,
        "ssh_idx": str(contract.id % 9 + 1),
        "ssh_port": contract.proxy_port,
        "machine_dir_ssh_port": contract.ports.get("22/tcp"),
        "public_ipaddr": f"{address}\n" if alive else None,
        "local_ipaddrs": "10.2.0.1 172.17.0.1 \n" if alive else None,
        "ports": ports if alive else None,
        "direct_port_count": len(used),
        "direct_port_start": used[0] if used else -1,
        "direct_port_end": used[-1] if used else -1,
    }

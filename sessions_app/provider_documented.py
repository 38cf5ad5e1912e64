"""Examples of the providers' pages for the OpenAPI schema."""

from __future__ import annotations

from typing import Any

from sessions_app.documented import SESSION_ID

_AT, _LATER = "2026-01-29T12:00:00Z", "2026-01-29T14:00:00Z"
_LABEL = "gpb-k3vq7rma-abc234defghijk67-1"
_OURS = {"kind": "session", "session_id": SESSION_ID, "consumer_id": "my-application", "deployment": None}
_UNKNOWN = {"kind": "unknown", "session_id": None, "consumer_id": None, "deployment": None}
_INSTANCE: dict[str, Any] = {
    "instance_id": "20401337", "label": _LABEL, "owner": _OURS, "phase": "running", "status": "running",
    "status_message": "success, running ubuntu:24.04/ssh", "gpu_name": "RTX 4090", "gpu_count": 1,
    "machine_id": "28441", "gpu_price_per_hour": 0.45, "storage_price_per_hour": 0.02, "created_at": _AT,
    "ends_at": None,
}  # fmt: skip

PROVIDERS: dict[str, Any] = {
    "providers": [{
        "provider": "vastai",
        "capabilities": {
            "templates": True, "interruptible": True, "preserve_disk": True, "attach_ssh_key": True,
            "custom_image": True, "own_images": "", "entrypoint": True, "least_disk_gb": 0, "bills_from_order": False,
            "label_length": 60, "reboot": True, "logs": True, "price_includes": ["gpu", "vcpu", "ram"],
        },
        "sweep": {
            "last_complete_at": _AT, "next_at": "2026-01-29T12:00:30Z", "failures_in_a_row": 0, "last_error": "",
            "held_reason": "", "machines": 3, "ours": 2,
        },
        "breaker": {"open": False, "open_until": None, "failures_in_a_row": 0, "last_error": ""},
        "offers": {"count": 312, "last_success_at": _AT, "failures_in_a_row": 0},
        "maintenance": None,
        "balance": {
            "credit": 84.12, "currency": "USD", "asked_at": _AT, "burn_per_hour": 0.94, "runway_hours": 89.49,
        },
    }],
    "count": 1,
}  # fmt: skip
BALANCE = {
    "provider": "vastai", "credit": 84.12, "currency": "USD", "asked_at": _AT, "burn_per_hour": 0.94,
    "runway_hours": 89.49,
}  # fmt: skip
USER = {
    "provider": "vastai", "user_id": "128", "username": "gpu-team", "email": "gpu@example.com", "credit": 84.12,
    "balance": 0,
}  # fmt: skip
INSTANCES = {
    "provider": "vastai", "count": 2, "total": 2,
    "instances": [
        _INSTANCE, {**_INSTANCE, "instance_id": "20401501", "label": "somebody's notebook", "owner": _UNKNOWN},
    ],
}  # fmt: skip
BIDS = {
    "provider": "vastai", "count": 1, "total": 1,
    "bids": [{"bid_id": "20401337", "price_per_hour": 0.21, "instance": _INSTANCE}],
}  # fmt: skip
INVOICES = {
    "provider": "vastai", "count": 1, "total": 1, "amount": -25,
    "invoices": [{
        "invoice_id": "51002", "kind": "credit", "source": "stripe", "description": "Top-up", "amount": -25,
        "starts_at": _AT, "ends_at": None,
    }],
}  # fmt: skip
CHARGES = {
    "provider": "vastai", "count": 1, "total": 1, "amount": 0.94,
    "charges": [{
        "source": "instance-20401337", "instance_id": "20401337", "label": _LABEL, "owner": _OURS,
        "description": "RTX 4090", "amount": 0.94, "starts_at": _AT, "ends_at": _LATER,
        "items": [{"kind": "gpu", "description": "2.000 hours at $0.45/hour", "amount": 0.9},
                  {"kind": "disk", "description": "2.000 hours at $0.02/hour", "amount": 0.04}],
    }],
}  # fmt: skip
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl staff@example"
KEY = {
    "key_id": "7001", "public_key": PUBLIC_KEY, "fingerprint": "SHA256:kPZ8nXb0cJXn3hRkq1nP0tqkq0m6bQe5v9o1q0b6J9E",
}  # fmt: skip
KEYS = {"provider": "vastai", "ssh_keys": [KEY], "count": 1, "total": 1}
TEMPLATE = {"name": "vLLM, ours", "image": "vllm/vllm-openai:latest", "env": "-p 8000:8000", "runtype": "args"}
TEMPLATES = {
    "provider": "vastai", "count": 1, "total": 1,
    "templates": [{
        "template_id": "338630", "hash_id": "a8a44c7363cbca20056020397e3bf072", "name": "vLLM, ours",
        "image": "vllm/vllm-openai:latest", "recommended": False,
    }],
}  # fmt: skip
TEMPLATE_CHANGED = {
    "message": "template written", "provider": "vastai", "template_id": "338630",
    "hash_id": "a8a44c7363cbca20056020397e3bf072",
}  # fmt: skip
MACHINES = {
    "provider": "vastai", "count": 1, "total": 1,
    "machines": [{
        "machine_id": "28441", "hostname": "rack-7", "gpu_name": "RTX 4090", "gpu_count": 8, "price_per_gpu_hour": 0.4,
        "min_bid_per_gpu_hour": 0.2, "verified": True,
    }],
}  # fmt: skip


def changed(message: str) -> dict[str, str]:
    return {"message": message, "provider": "vastai"}

"""How long a machine may take from the provider's yes to an answer.

``SSH_VERIFY_SECONDS`` is enough for an image of the usual size. Whatever must be fetched first on top of that (a heavy
image; with the entrypoint launch, which answers when its model is loaded, the weights) adds the time it takes at the
speed that the offer promised, up to an hour in all.

The time runs from the provider's acceptance, not from the session's creation: what the broker or the provider's gate
took before is not the machine's fault. It starts anew once, when the machine first shows an address: from then on there
is at least half of ``SSH_VERIFY_SECONDS`` for its SSH server or its image's server to come up. Words about progress
(layers, percentages) do not move it, because a stuck pull says them for ever. While others
bid more for an interruptible machine it stands still.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from django.conf import settings

from offers.models import Offer
from sessions_app import disk
from sessions_app.launch_modes import ENTRYPOINT
from sessions_app.models import Rental, Session
from templates_app.models import Template

#: Nobody waits longer, unless ``SSH_VERIFY_SECONDS`` itself is more.
MOST = timedelta(minutes=60)
#: Outbid for longer than this in all before it ever ran, it is given up.
MOST_PAUSED = timedelta(minutes=30)
#: What a machine really gets of the speed that its host measured, and what is assumed where the offer says none.
SHARE = 0.5
UNKNOWN_MBPS = 100.0
#: Decompressing and writing, or loading into the GPU, which begins when the download is nearly over.
UNPACK_SECONDS_PER_GB = 15.0
#: Images that take much longer to fetch than the base time has room for: what their names look like, and their size as
#: the registry holds them, in GB, rounded up. The first that fits counts.
HEAVY: tuple[tuple[str, float], ...] = (
    (r"nvcr\.io/nvidia/tritonserver", 12.0),  # a whole inference server, with TensorRT-LLM more than double
    (r"nvcr\.io/nvidia/(pytorch|tensorflow|nemo)", 11.0),  # NVIDIA's monthly builds carry every library
    (r"vllm", 11.0),  # CUDA devel for kernels compiled at run time, PyTorch, FlashInfer
    (r"sglang", 12.0),  # as vLLM, and its own kernels
    (r"text-generation-inference|/tgi", 7.0),  # PyTorch and compiled kernels
    (r"comfyui|comfy-|stable-diffusion|sd-webui|a1111|automatic1111|kohya|forge|invokeai|fluxgym", 8.0),  # + PyTorch
    (r"axolotl|unsloth|llama-factory|deepspeed|text-generation-webui|oobabooga", 10.0),  # PyTorch devel and kernels
    (r"transformers-pytorch|rapids", 9.0),
    (r"pytorch[^/]*:.*devel|vastai/pytorch|runpod/pytorch", 9.0),  # PyTorch beside a CUDA toolchain
    (r"pytorch", 4.5),  # runtime only
    (r"tensorflow", 4.0),
    (r"llama[._-]?cpp|llama-server|koboldcpp", 4.0),  # full builds stand on CUDA devel
    (r"(nvidia/)?cuda.*devel", 5.0),  # compilers, headers, cuDNN
    (r"ollama|jupyter|whisper", 3.5),
)
_HEAVY = tuple((re.compile(pattern, re.IGNORECASE), size) for pattern, size in HEAVY)


def image_gb(image: str) -> float:
    """What is to be fetched for a heavy image; 0 for one that the base time has room for."""
    return next((size for pattern, size in _HEAVY if pattern.search(image)), 0.0)


def base() -> timedelta:
    return timedelta(seconds=settings.SSH_VERIFY_SECONDS)


def allowed(gigabytes: float, mbps: float | None) -> timedelta:
    """From acceptance on, where this much is to be fetched at this speed (as offered, in Mbit/s)."""
    speed = (mbps or UNKNOWN_MBPS) * SHARE
    extra = timedelta(seconds=min(gigabytes * (8000 / speed + UNPACK_SECONDS_PER_GB), MOST.total_seconds()))
    return max(base(), min(base() + extra, MOST))


def to_fetch_gb(session: Session) -> float:
    """The heavy image's size, the request's or its template's, and the model's with the entrypoint launch."""
    image = session.docker_image
    if not image and session.template_hash_id:
        image = Template.objects.filter(hash_id=session.template_hash_id).values_list("image", flat=True).first() or ""
    weights = 0.0
    if session.launch_mode == ENTRYPOINT:
        options = session.launch_options
        model = disk.estimate(options.get("model_id", ""), options.get("quantization", ""))
        weights = float(model.weights) if model is not None else 0.0
    return image_gb(image) + weights


def paused_for(session: Session, rental: Rental, now: datetime) -> timedelta:
    """How long the machine has stood still because others bid more, the present pause included."""
    present = now - session.paused_at if session.paused_at is not None else timedelta(0)
    return timedelta(seconds=rental.paused_seconds) + max(present, timedelta(0))


def _began(rental: Rental) -> datetime:
    """The acceptance, later by the pauses that are over."""
    assert rental.accepted_at is not None
    return rental.accepted_at + timedelta(seconds=rental.paused_seconds)


def deadline(session: Session, rental: Rental) -> datetime:
    """When this machine is given up, unless it has answered. Never before ``SSH_VERIFY_SECONDS`` are over."""
    began = _began(rental)
    gigabytes = to_fetch_gb(session)
    mbps = _offered_mbps(session.offer_id) if gigabytes else None
    until = began + allowed(gigabytes, mbps)
    if rental.verify_from is not None:
        until = max(until, rental.verify_from + timedelta(seconds=rental.paused_seconds) + base() / 2)
    return min(until, began + max(MOST, base()))


def is_over(session: Session, rental: Rental, now: datetime) -> bool:
    """Asked at every step of a boot, so what needs the database is only looked up when it can matter."""
    return now >= _began(rental) + base() and now >= deadline(session, rental)


def not_past(session: Session, rental: Rental, at: datetime) -> datetime:
    """``at``, or the deadline where that comes first."""
    return at if at < _began(rental) + base() else min(at, deadline(session, rental))


def seconds(session: Session, rental: Rental) -> int:
    """From acceptance to the deadline."""
    assert rental.accepted_at is not None
    return round((deadline(session, rental) - rental.accepted_at).total_seconds())


def _offered_mbps(offer_id: str) -> float | None:
    found = Offer.objects.filter(id=offer_id).values_list("inet_down_mbps", flat=True).first()
    return float(found) if found else None

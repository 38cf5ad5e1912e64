"""The two ways to launch a machine, and what proves that it runs.

* ``ssh``: the provider's own start puts an SSH server beside the image. ``running`` means that SSH was verified:
  connected, logged in with our key, and ``nvidia-smi`` shows the promised GPUs.
* ``entrypoint``: the image runs as it is, and there is no SSH server. ``running`` means that something on the first
  exposed port accepts a connection and answers HTTP, with any status: a model that is still loading and says 503 is
  up. That proves less than SSH does (nothing is known of the GPUs). Without ``exposed_ports`` the server's own port is
  exposed, or 8000, which inference servers use most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

SSH, ENTRYPOINT = "ssh", "entrypoint"

#: Exposed when neither the request nor the kind of server says another.
USUAL_PORT = 8000
#: Docker's own meaning of an image without a tag, said aloud because a vendor refuses such images.
DEFAULT_TAG = "latest"


@dataclass(frozen=True, slots=True)
class Server:
    """How one kind of inference server is started."""

    image: str
    port: int
    arguments: Callable[[str, str, int, int], list[str]]


def _vllm(model_id: str, quantization: str, gpu_count: int, port: int) -> list[str]:
    arguments = ["--model", model_id, "--host", "0.0.0.0", "--port", str(port)]  # noqa: S104 - inside the container
    if quantization:
        arguments += ["--quantization", quantization]
    return arguments + (["--tensor-parallel-size", str(gpu_count)] if gpu_count > 1 else [])


def _tgi(model_id: str, quantization: str, gpu_count: int, port: int) -> list[str]:
    arguments = ["--model-id", model_id, "--hostname", "0.0.0.0", "--port", str(port)]  # noqa: S104
    if quantization:
        arguments += ["--quantize", quantization]
    return arguments + (["--num-shard", str(gpu_count)] if gpu_count > 1 else [])


#: By ``workload_type``.
SERVERS: dict[str, Server] = {
    "llm_vllm": Server("vllm/vllm-openai:latest", 8000, _vllm),
    "llm_tgi": Server("ghcr.io/huggingface/text-generation-inference:latest", 80, _tgi),
}


def server_for(workload_type: str, model_id: str) -> Server | None:
    """The inference server that this work means; it needs a model to serve."""
    return SERVERS.get(workload_type) if model_id else None


def with_tag(image: str) -> str:
    """The image with a tag or digest."""
    if not image or "@" in image or ":" in image.rsplit("/", 1)[-1]:
        return image
    return f"{image}:{DEFAULT_TAG}"

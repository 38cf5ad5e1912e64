"""The public templates that a fresh sandbox offers."""

from __future__ import annotations

import json
from typing import Any

_PORTAL = "-p 1111:1111 -e OPEN_BUTTON_PORT=1111 -e OPEN_BUTTON_TOKEN=1 -e JUPYTER_DIR=/ -e DATA_DIRECTORY=/workspace/"
_ONSTART = "entrypoint.sh"


def _template(
    number: int, name: str, image: str, env: str, filters: dict[str, Any], disk: int, **more: Any
) -> dict[str, Any]:
    return {
        "id": number,
        "name": name,
        "image": image,
        "tag": more.pop("tag", "@vastai-automatic-tag"),
        "env": f"{env} {_PORTAL}".strip(),
        "onstart": _ONSTART,
        "runtype": "jupyter",
        "use_ssh": True,
        "ssh_direct": True,
        "jup_direct": True,
        "use_jupyter_lab": False,
        "extra_filters": json.dumps(filters),
        "recommended_disk_space": disk,
        "readme_visible": True,
        **more,
    }


def _plain(
    number: int, name: str, image: str, tag: str, filters: dict[str, Any], disk: int, **more: Any
) -> dict[str, Any]:
    """SSH and nothing else."""
    made = _template(number, name, image, "", filters, disk, tag=tag, **more)
    return {**made, "runtype": "ssh", "env": "", "onstart": ""}


def seeds() -> list[dict[str, Any]]:
    """Twelve templates of the kinds that people use most."""
    cuda12: dict[str, Any] = {"cuda_max_good": {"gte": "12.4"}}
    return [
        _template(
            338_630,
            "Ollama",
            "vastai/ollama",
            "-p 11434:11434 -e OLLAMA_MODEL= -e OLLAMA_PORT=11434",
            {"gpu_ram": {"gte": "12000"}, **cuda12},
            32,
            hash_id="a8a44c7363cbca20056020397e3bf072",
            desc="Run open models behind the Ollama API.",
            count_created=48_120,
        ),
        _template(
            338_641,
            "vLLM",
            "vastai/vllm",
            "-p 8000:8000 -e VLLM_MODEL=Qwen/Qwen2.5-7B-Instruct -e VLLM_ARGS='--max-model-len 8192'",
            {"gpu_ram": {"gte": "20000"}, "compute_cap": {"gte": "750"}, **cuda12},
            64,
            desc="High-throughput inference with an OpenAI-compatible API.",
            count_created=61_502,
        ),
        _template(
            338_655,
            "PyTorch (Vast)",
            "vastai/pytorch",
            "-p 6006:6006",
            {"cuda_max_good": {"gte": "11.8"}},
            32,
            desc="PyTorch with Jupyter, for training and experiments.",
            count_created=190_344,
        ),
        _template(
            338_662,
            "ComfyUI",
            "vastai/comfy",
            "-p 8188:8188 -e COMFYUI_ARGS='--disable-auto-launch --port 18188'",
            {"gpu_ram": {"gte": "11000"}, **cuda12},
            48,
            desc="Node-based image generation.",
            count_created=75_031,
        ),
        _template(
            338_670,
            "Stable Diffusion WebUI Forge",
            "vastai/sd-forge",
            "-p 7860:7860",
            {"gpu_ram": {"gte": "8000"}, "cuda_max_good": {"gte": "12.1"}},
            48,
            desc="Image generation in a web page.",
            count_created=22_870,
        ),
        _template(
            338_688,
            "Text Generation WebUI",
            "vastai/oobabooga",
            "-p 7860:7860 -p 5000:5000",
            {"gpu_ram": {"gte": "15000"}, "cuda_max_good": {"gte": "12.1"}},
            64,
            desc="Chat with local models.",
            count_created=18_405,
        ),
        _template(
            338_702,
            "Whisper WebUI",
            "vastai/whisper",
            "-p 7860:7860",
            {"gpu_ram": {"gte": "6000"}},
            24,
            desc="Speech to text.",
            count_created=6_933,
        ),
        _template(
            338_711,
            "Axolotl",
            "axolotlai/axolotl-cloud",
            "",
            {"gpu_ram": {"gte": "22000"}, "disk_space": {"gte": "100"}, **cuda12},
            100,
            tag="main-latest",
            desc="Fine-tuning of language models.",
            count_created=4_210,
        ),
        _template(
            338_719,
            "SGLang",
            "lmsysorg/sglang",
            "-p 30000:30000",
            {"gpu_ram": {"gte": "22000"}, "num_gpus": {"in": ["1", "2", "4", "8"]}, **cuda12},
            80,
            tag="latest",
            desc="Serving of language models.",
            count_created=3_377,
        ),
        _plain(
            338_730,
            "NVIDIA CUDA",
            "vastai/base-image",
            "cuda-12.4.1-auto",
            {"cuda_max_good": {"gte": "12.4"}},
            16,
            desc="CUDA development image with SSH.",
            count_created=120_990,
        ),
        _plain(
            338_744,
            "Ubuntu 22.04",
            "ubuntu",
            "22.04",
            {},
            10,
            desc="Nothing but an operating system.",
            count_created=33_018,
        ),
        _plain(
            338_751,
            "TensorFlow CUDA",
            "vastai/tensorflow",
            "latest",
            {"cuda_max_good": {"gte": "12.1"}, "cpu_ram": {"gte": "16000"}, "verified": {"eq": True}},
            32,
            desc="TensorFlow with CUDA.",
            count_created=11_562,
        ),
    ]

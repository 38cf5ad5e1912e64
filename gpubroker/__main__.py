"""``python -m gpubroker`` is the ``gpubroker`` command."""

from gpubroker.cli import main

if __name__ == "__main__":
    main()

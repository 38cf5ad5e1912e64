"""The LowCodeAPI face: a gateway in front of the Vast.ai face, with paths and envelopes of its own."""

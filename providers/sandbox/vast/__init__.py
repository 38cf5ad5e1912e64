"""The Vast.ai face: its HTTP wire as described in the Vast.ai contract, onto the sandbox's engine."""

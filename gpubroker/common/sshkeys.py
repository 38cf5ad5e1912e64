"""SSH key pairs: the consumer's (RSA-3072 in PEM as the API promises, ed25519 on request) and the broker's own."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ed25519, rsa

KEY_TYPES = ("rsa", "ed25519")
MAX_PUBLIC_KEY_LENGTH = 8192


@dataclass(frozen=True)
class KeyPair:
    #: One OpenSSH line: ``ssh-ed25519 AAAA... comment``
    public: str
    #: PEM; never stored in clear, never logged.
    private: str = field(repr=False)


def generate(kind: str, comment: str) -> KeyPair:
    """A new pair. ``rsa`` gives ``-----BEGIN RSA PRIVATE KEY-----``, ``ed25519`` the OpenSSH form."""
    private: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
    if kind == "rsa":
        private = rsa.generate_private_key(public_exponent=65537, key_size=3072)
        form = serialization.PrivateFormat.TraditionalOpenSSL
    elif kind == "ed25519":
        private = ed25519.Ed25519PrivateKey.generate()
        form = serialization.PrivateFormat.OpenSSH
    else:
        raise ValueError(f"unknown key type {kind!r}")
    pem = private.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()
    public = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return KeyPair(public=f"{public.decode()} {comment}", private=pem)


def checked_public_key(text: str) -> str:
    """The key as one clean OpenSSH line, or ``ValueError`` with the reason in plain words.

    Only type, body and comment survive: options such as ``command=`` are refused, and so is
    anything with a second line, which could smuggle another key into ``authorized_keys``.
    """
    line = text.strip()
    if not line or len(line) > MAX_PUBLIC_KEY_LENGTH:
        raise ValueError(f"must be one OpenSSH public key line of at most {MAX_PUBLIC_KEY_LENGTH} characters")
    if any(ord(character) < 32 or ord(character) == 127 for character in line):
        raise ValueError("must be a single line without control characters")
    if "PRIVATE KEY" in line:
        raise ValueError("this is a private key; send the public half (the .pub file)")
    try:
        key = serialization.load_ssh_public_key(line.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("is not an OpenSSH public key such as 'ssh-ed25519 AAAA... you@host'") from None
    if isinstance(key, dsa.DSAPublicKey):
        raise ValueError("DSA keys are too weak; use ed25519, ECDSA or RSA")
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < 2048:
        raise ValueError(f"RSA keys need at least 2048 bits, this one has {key.key_size}")
    return line

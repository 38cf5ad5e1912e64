"""Secrets at rest: encrypted with the first of ``ENCRYPTION_KEYS``, readable with any of them."""

from __future__ import annotations

import functools

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings


class SecretUnreadable(Exception):
    """No configured key opens this secret; the message names the setting to look at."""


@functools.cache
def _box(keys: tuple[str, ...]) -> MultiFernet:
    return MultiFernet([Fernet(key) for key in keys])


def seal(secret: str) -> str:
    return _box(tuple(settings.ENCRYPTION_KEYS)).encrypt(secret.encode()).decode()


def unseal(sealed: str) -> str:
    try:
        return _box(tuple(settings.ENCRYPTION_KEYS)).decrypt(sealed.encode()).decode()
    except InvalidToken:
        raise SecretUnreadable("a stored secret was sealed with a key that is not in ENCRYPTION_KEYS") from None

"""Bytes and seconds as a reader wants them."""

from __future__ import annotations


def in_bytes(size: float) -> str:
    """Bytes, in powers of a thousand.

    >>> in_bytes(1_340_000_000), in_bytes(250_000)
    ('1.34 GB', '0.25 MB')
    """
    return f"{size / 1e9:,.2f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB" if size >= 1e7 else f"{size / 1e6:,.2f} MB"


def in_seconds(seconds: float) -> str:
    """A time that nobody knows to the second.

    >>> in_seconds(8.21), in_seconds(275), in_seconds(5000), in_seconds(20_000)
    ('8.2 s', '275 s', '83 min', '5.6 h')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 300:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"

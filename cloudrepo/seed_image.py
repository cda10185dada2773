"""The volume of a NoCloud seed: a small ISO 9660 named `cidata`, the same bytes for the same files. Pure."""

from __future__ import annotations

import io
import struct

from cloudrepo.first_boot import Seed

LABEL = "cidata"
_SECTOR = 2048
_FIRST_DESCRIPTOR = 16  # ECMA-119, 7.2.1
_LAST_DESCRIPTOR = 255
_ROOT = 156  # where a descriptor has the record of its root directory
_EXTENT, _DATE = 2, 18  # in a record of a directory: where what it tells of is; its date
_DATES = slice(813, 881)  # of a descriptor: four, in digits
_THEN = bytes([100, 1, 1, 0, 0, 0, 0])  # a date as a record has it: the first day of 2000
_THEN_IN_DIGITS = b"2000010100000000\0" * 4


def volume(seed: Seed) -> bytes:
    """The volume with the seed's files, under their long names (Joliet).

    Nothing in it tells when it was made: each start of a machine, by whichever process, writes the same.
    """
    import pycdlib  # slow to import, and few need it

    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=1, vol_ident=LABEL, joliet=3)
    try:
        for name, text in seed.files:
            data = text.encode()
            short = name.replace("-", "").upper()[:8]
            iso.add_fp(io.BytesIO(data), len(data), f"/{short}.;1", joliet_path=f"/{name}")
        made = io.BytesIO()
        iso.write_fp(made)
    finally:
        iso.close()
    return _without_dates(bytearray(made.getvalue()))


def _without_dates(image: bytearray) -> bytes:
    """The same with one date everywhere; the library writes that of the moment."""
    at = _FIRST_DESCRIPTOR * _SECTOR
    while image[at] != _LAST_DESCRIPTOR:
        image[at + _DATES.start : at + _DATES.stop] = _THEN_IN_DIGITS
        _set_date(image, at + _ROOT)
        start, size = _place(image, at + _ROOT)
        record = start
        while record < start + size and image[record]:  # a length of 0: no further records
            _set_date(image, record)
            record += image[record]
        at += _SECTOR
    return bytes(image)


def _set_date(image: bytearray, record: int) -> None:
    image[record + _DATE : record + _DATE + len(_THEN)] = _THEN


def _place(image: bytearray, record: int) -> tuple[int, int]:
    """Where what a record tells of begins, and how long it is; both stand there in either order of bytes."""
    sector, size = struct.unpack_from("<I4xI", image, record + _EXTENT)
    return sector * _SECTOR, size

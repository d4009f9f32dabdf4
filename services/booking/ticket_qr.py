"""Draws the QR code of a ticket (ISO/IEC 18004), as an image and in characters."""

import io

import segno

MODULE_SIZE_DEFAULT = 8
_QUIET_MODULES = 4
# Both halves of a line of text are modules: dark over light, and so on. Dark is drawn as space, for
# terminals whose text is light; with the quiet zone it reads on either.
_HALVES = {(0, 0): "█", (0, 1): "▀", (1, 0): "▄", (1, 1): " "}


def qr_png(text: str, *, module_size: int) -> bytes:
    """Return a PNG with error correction M and the quiet zone; `module_size` in pixels, 0 for 8."""
    image = io.BytesIO()
    _qr(text).save(
        image, kind="png", scale=module_size or MODULE_SIZE_DEFAULT, border=_QUIET_MODULES
    )
    return image.getvalue()


def qr_drawing(text: str) -> str:
    """Return the code in block characters, two modules a character; a line feed ends each line."""
    rows = [list(row) for row in _qr(text).matrix_iter(border=_QUIET_MODULES)]
    if len(rows) % 2:
        rows.append([0] * len(rows[0]))
    return "".join(
        "".join(_HALVES[upper & 1, lower & 1] for upper, lower in zip(top, bottom, strict=True))
        + "\n"
        for top, bottom in zip(rows[::2], rows[1::2], strict=True)
    )


def _qr(text: str) -> segno.QRCode:
    return segno.make_qr(text, error="m", boost_error=False)

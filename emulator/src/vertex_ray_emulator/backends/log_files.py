"""Read new lines of the log files below a directory."""

from __future__ import annotations

from pathlib import Path

_SUFFIXES = {".log", ".out", ".err"}
_MOST_BYTES = 16 << 20


def new_lines(folder: Path, seen: dict[str, int], *, last: bool = False) -> list[tuple[str, list[str]]]:
    """Return the lines that were added to files since the last call.

    :param folder: directory of the files; it need not exist.
    :param seen: number of bytes read of each file; it is updated.
    :param last: also return an incomplete last line, because no more lines follow.
    :return: paths with their lines.
    """
    found: list[tuple[str, list[str]]] = []
    for path in sorted(each for each in folder.rglob("*") if each.suffix in _SUFFIXES):
        name = str(path)
        try:
            size = path.stat().st_size
            begin = seen.get(name, 0)
            if size < begin:  # the file was rotated
                begin = seen[name] = 0
            if size == begin or not path.is_file():
                continue
            with path.open("rb") as file:
                file.seek(begin)
                data = file.read(_MOST_BYTES)
        except OSError:
            continue
        end = len(data) if last or len(data) == _MOST_BYTES else data.rfind(b"\n") + 1
        if end:
            seen[name] = begin + end
            # Not splitlines(): a progress bar's carriage returns do not end a line of the file.
            text = data[:end].decode(errors="replace").removesuffix("\n")
            found.append((name, [line.rstrip("\r") for line in text.split("\n")]))
    return found

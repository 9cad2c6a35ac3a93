"""A large file at the client's pace: a client that reads slowly pauses the generator, and memory stays flat.

Run it with `catzilla run examples.backpressure:app`, then
`curl --limit-rate 1M -o copy.bin http://127.0.0.1:8000/large-file`.
"""

import shutil
import tempfile
from pathlib import Path
from typing import IO, Any

from catzilla import Catzilla, StreamingResponse

app = Catzilla()

SIZE_BYTES = 64 * 1024 * 1024

folder = Path()  # holds large_file.bin while the app is served


@app.on_startup
def make_large_file() -> None:
    global folder
    folder = Path(tempfile.mkdtemp(prefix="catzilla-"))
    block = bytes(range(256)) * 4096
    with (folder / "large_file.bin").open("wb") as file:
        file.writelines(block for _ in range(SIZE_BYTES // len(block)))


@app.on_shutdown
def remove_large_file() -> None:
    shutil.rmtree(folder)


def open(name: str, mode: str) -> IO[Any]:  # noqa: A001  the name below is in that folder, not in the current one
    return (folder / name).open(mode)


# fmt: off
@app.route("/large-file")
def stream_large_file():
    def generate_large_file():
        with open("large_file.bin", "rb") as f:
            while True:
                chunk = f.read(8192)
                if not chunk:
                    break
                yield chunk
                # No sleep needed - backpressure is handled automatically

    return StreamingResponse(generate_large_file(), content_type="application/octet-stream")
# fmt: on


if __name__ == "__main__":
    app.listen()

"""Files to download, with ranges and validators, sent by the kernel (`os.sendfile`) where there is no TLS.

Run it with `catzilla run examples.file_download:app`, then `curl http://127.0.0.1:8000/files` and
`curl -O -r 0-99 http://127.0.0.1:8000/files/file_download.py`.
"""

from pathlib import Path

from catzilla import Catzilla, FileResponse, HTTPError

app = Catzilla()

FOLDER = Path(__file__).parent


def names() -> list[str]:
    return sorted(path.name for path in FOLDER.glob("*.py"))


@app.get("/files")
def list_files() -> list[str]:
    return names()


@app.get("/files/{name}")
def download(name: str) -> FileResponse:
    if name not in names():  # never trust a path from outside: it could lead out of the folder
        raise HTTPError(404, f"there is no file {name!r}")
    return FileResponse(FOLDER / name, filename=name)


if __name__ == "__main__":
    app.listen()

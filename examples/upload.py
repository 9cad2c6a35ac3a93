"""A form with a file: fields are text, files are on disk when they are large, and both are gone after the request.

Run it with `catzilla run examples.upload:app`, then open http://127.0.0.1:8000/upload in a browser.
"""

import hashlib
from typing import Any

from catzilla import Catzilla, HTTPError, Request

app = Catzilla()

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Upload</title>
<form method="post" enctype="multipart/form-data">
  <p><label>Note <input name="note"></label>
  <p><label>File <input name="file" type="file" required></label>
  <p><button>Upload</button>
</form>
"""


@app.get("/upload")
def form() -> str:
    return PAGE


@app.post("/upload")
def upload(request: Request) -> dict[str, Any]:
    file = request.files.get("file")
    if file is None:
        raise HTTPError(400, "the form has no file")
    digest = hashlib.sha256()
    while block := file.read(64 * 1024):
        digest.update(block)
    note = request.form().get("note", "")
    return {"filename": file.filename, "bytes": file.size, "sha256": digest.hexdigest(), "note": note}


if __name__ == "__main__":
    app.listen()

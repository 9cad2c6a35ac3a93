"""Newline-delimited JSON from a list: what is ready already needs no thread, and leaves in one go.

Run it with `catzilla run examples.json_lines:app`, then `curl http://127.0.0.1:8000/json-stream`.
"""

import time

from catzilla import Catzilla, StreamingResponse

app = Catzilla()


# fmt: off
@app.get("/json-stream")
def json_stream_endpoint(request):
    import json
    all_content = []
    for i in range(50):
        data = {
            "id": i,
            "timestamp": time.time(),
            "value": i * 3.14159
        }
        all_content.append(json.dumps(data) + "\n")

    return StreamingResponse(
        all_content,
        content_type="application/x-ndjson"  # newline-delimited JSON
    )
# fmt: on


if __name__ == "__main__":
    app.listen()

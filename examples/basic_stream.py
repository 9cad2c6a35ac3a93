"""Text that arrives line by line: a plain generator in a `StreamingResponse`.

Run it with `catzilla run examples.basic_stream:app`, then `curl -N http://127.0.0.1:8000/stream`.
"""

# ruff: noqa: I001
# fmt: off
from catzilla import Catzilla, StreamingResponse
import time

app = Catzilla()

@app.get("/stream")
def stream_endpoint(request):
    def generate_data():
        for i in range(10):
            yield f"Count: {i}\n"
            time.sleep(0.1)  # Add a small delay to see the streaming effect

    return StreamingResponse(generate_data(), content_type="text/plain")
# fmt: on


if __name__ == "__main__":
    app.listen()

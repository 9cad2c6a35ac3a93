"""Server-Sent Events written by hand; `examples.progress` has the shorter way, with `Event` and `EventStream`.

Run it with `catzilla run examples.server_sent_events:app`, then `curl -N http://127.0.0.1:8000/events`.
"""

import time

from catzilla import Catzilla, StreamingResponse

app = Catzilla()


# fmt: off
@app.get("/events")
def sse_endpoint(request):
    def generate_sse():
        for i in range(20):
            # Format according to SSE specification
            yield f"id: {i}\n"
            yield f"data: {{'count': {i}, 'timestamp': {time.time()}}}\n\n"
            time.sleep(0.5)  # Add a delay to simulate real-time updates

    return StreamingResponse(
        generate_sse(),
        content_type="text/event-stream"
    )
# fmt: on


if __name__ == "__main__":
    app.listen()

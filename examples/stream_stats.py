"""What the server knows about its streams; `catzilla.StreamingStats` lists all there is.

Run it with `catzilla run examples.stream_stats:app`, then `curl http://127.0.0.1:8000/admin/stream-stats`.
"""

# ruff: noqa: E402, I001
from catzilla import Catzilla

app = Catzilla()

# fmt: off
from catzilla import streaming_stats

@app.route("/admin/stream-stats")
def show_streaming_stats():
    stats = streaming_stats()
    return {
        "active_streams": stats.active_streams,
        "total_bytes_streamed": stats.total_bytes_streamed,
        "avg_throughput_mbps": stats.avg_throughput_mbps,
        "connection_errors": stats.connection_errors
    }
# fmt: on


if __name__ == "__main__":
    app.listen()

"""The file-like `StreamingWriter`, for code that wants a file to write to: `csv.writer(w)`, `print(..., file=w)`.

Run it with `catzilla run examples.streaming_writer:app`, then `curl -N http://127.0.0.1:8000/csv`.
"""

import time

from catzilla import Catzilla, StreamingResponse, StreamingWriter

app = Catzilla()


# fmt: off
@app.route("/csv")
def csv_stream():
    response = StreamingResponse(content_type="text/csv")
    writer = StreamingWriter(response)

    # Write CSV header
    writer.write("id,name,value\n")

    # Write data incrementally
    for i in range(1000):
        writer.write(f"{i},item-{i},{i*10}\n")
        time.sleep(0.01)  # Simulate work

    writer.close()
    return response
# fmt: on


if __name__ == "__main__":
    app.listen()

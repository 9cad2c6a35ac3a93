"""A CSV file written row by row with `response.writer()`; each row is on its way before `write` returns.

Run it with `catzilla run examples.csv_writer:app`, then `curl -N http://127.0.0.1:8000/csv`.
"""

import time

from catzilla import Catzilla, StreamingResponse

app = Catzilla()


# fmt: off
@app.get("/csv")
def csv_endpoint(request):
    response = StreamingResponse(
        content_type="text/csv",
        headers={"Content-Disposition": "attachment; filename=data.csv"}
    )

    def write_csv(writer):
        # Write CSV header
        writer.write("id,name,value\n")

        # Stream rows one by one
        for i in range(100):
            writer.write(f"{i},item-{i},{i*10}\n")
            time.sleep(0.05)  # Small delay to demonstrate streaming

    # Use the context manager pattern
    with response.writer() as writer:
        write_csv(writer)

    return response
# fmt: on


if __name__ == "__main__":
    app.listen()

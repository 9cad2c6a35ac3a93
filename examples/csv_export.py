"""A big CSV export straight from sqlite, in constant memory, on a connection that the handler opened.

Run it with `catzilla run examples.csv_export:app`, then `curl -O -J http://127.0.0.1:8000/export`.

`sqlite3` refuses a connection on any thread but the one that opened it. It works here because a handler, its
generator and the generator's `finally` always run on one thread.
"""

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from catzilla import Catzilla, CSVResponse

app = Catzilla()

ROWS = 200_000

folder = Path()  # holds the database while the app is served


@app.on_startup
def make_database() -> None:
    global folder
    folder = Path(tempfile.mkdtemp(prefix="catzilla-"))
    connection = connect()
    with connection:
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT, amount REAL)")
        connection.execute(
            "WITH RECURSIVE numbers(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM numbers WHERE n < ?) "
            "INSERT INTO orders SELECT n, 'customer ' || (n * 7919 % 1000), round(n * 31 % 9973 / 7.0, 2) FROM numbers",
            [ROWS],
        )
    connection.close()


@app.on_shutdown
def remove_database() -> None:
    shutil.rmtree(folder)


def connect() -> sqlite3.Connection:
    return sqlite3.connect(folder / "orders.sqlite3")


@app.get("/export")
def export() -> CSVResponse:
    connection = connect()

    def rows() -> Iterator[tuple[Any, ...]]:
        try:
            yield from connection.execute("SELECT id, customer, amount FROM orders ORDER BY id")
        finally:
            connection.close()

    return CSVResponse(rows(), header=["id", "customer", "amount"], filename="orders.csv")


if __name__ == "__main__":
    app.listen()

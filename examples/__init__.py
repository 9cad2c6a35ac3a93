"""Small applications to read, run and copy: `catzilla run examples.showcase:app` shows them all in a browser."""

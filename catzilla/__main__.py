"""`python -m catzilla`: the command line where the console script is not on the path."""

from catzilla.cli import main

main(prog_name="catzilla")

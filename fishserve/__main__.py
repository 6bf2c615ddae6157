"""`python -m fishserve` is the `fishserve` command."""

from inference.cli import main

main()

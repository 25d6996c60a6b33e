"""`python -m metaloss`."""

from metaloss.cli import main

main()

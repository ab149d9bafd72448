"""`python -m listenai`."""

from listenai.cli import main

main()

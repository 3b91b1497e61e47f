"""`python -m jaxmeta` is `jaxmeta`."""

from jaxmeta.cli import main

main()

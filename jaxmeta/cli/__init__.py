"""The command line: `jaxmeta train`, `jaxmeta evaluate`, `jaxmeta list`."""

from jaxmeta.cli.command import main as main

"""`python -m vggkit` is the command `vggkit`."""

from vggkit.cli import main

main(prog_name="vggkit")

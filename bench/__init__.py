"""How fast everything is, against the machine's own matrix products where that says more.

Each bench runs as a module, prints a table and writes JSON that names the machine.
"""
import command_line

command_line.prepare_tensorflow_import()        # before any bench imports it

"""How fast everything is, against the machine's own matrix products where that says more.

Each bench runs as a module, prints a table and writes JSON that names the machine.
"""
import os

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')     # before any bench imports TensorFlow

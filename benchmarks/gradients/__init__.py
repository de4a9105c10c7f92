"""Measurements of the quantized gradients: one module a row of the table, each a command with ``--help``."""

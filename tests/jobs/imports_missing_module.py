"""Needs a module that nobody has."""

import module_that_nobody_has  # noqa: F401

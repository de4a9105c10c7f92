"""Error-compensated quantized gradients: workers exchange 2-, 4- or 8-bit codes instead of floats.

This room needs numpy and nothing else of tony. What a training script imports is one of the bindings:
``tony.gradients.keras``, ``.tensorflow``, ``.torch_hook``. Importing this package loads nothing.
"""

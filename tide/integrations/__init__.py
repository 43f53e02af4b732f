"""The public import path of the adapters: ``from tide.integrations.<framework> import ...``.

Each module here re-exports ``tide_integrations.<framework>`` and holds nothing else.
"""

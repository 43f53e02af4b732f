"""One thin module per UI framework; imported as ``tide.integrations.<framework>``."""

"""YAML → Config: the notation, the layers and the configurations."""

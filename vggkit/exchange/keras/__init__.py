"""Keras: the .keras archives of `model.save`."""

"""Several small clients trained as one: their models lie on top of each other."""

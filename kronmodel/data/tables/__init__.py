"""Tables of the user: files read with pyarrow, the kinds of their columns, and the encoding of columns as numbers."""

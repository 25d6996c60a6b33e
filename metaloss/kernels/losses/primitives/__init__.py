"""What the steps of a loss's program compute, as loops over rows of float32, each [n].

A file for each group of the table of primitives holds its values, and its reverse derivatives,
whose names end with the argument's: `g` is the gradient at the output, `o` the output, `a`, `b` and
`c` are the arguments. `result` is filled; it is none of the others. A group's `run` chooses the
loop by the number of its operation.
"""

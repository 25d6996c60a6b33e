"""Functions of one float32, written so that LLVM makes vector instructions of them in a loop."""

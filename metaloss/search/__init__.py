"""`evolve` as a program: settings, the run and its folder, the choice of the winner."""
